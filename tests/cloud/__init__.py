"""Google Cloud and Kubeflow Pipelines on this machine, as far as their own clients talk to them."""
