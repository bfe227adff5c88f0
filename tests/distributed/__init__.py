"""Programs that tests run as processes of their own, with several devices or in a cluster."""
