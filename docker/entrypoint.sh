#!/bin/sh
# Runs the command that the container was given; runners of Beam give flags alone, for a worker.
case "${1-}" in
-*) set -- python -m components.preprocess.worker "$@" ;;
esac
exec "$@"
