"""The command line of create_tfrecords."""

from components import command
from components.create_tfrecords.create_tfrecords import create_tfrecords

command.run(create_tfrecords)
