"""The step create_tfrecords: a dataset as it lies on disk becomes shards of checked examples."""
