"""A stand-in for Google Cloud, for tests: Dataflow's jobs and the buckets they work on."""
