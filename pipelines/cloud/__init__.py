"""Vertex AI and Kubeflow Pipelines: machines, images, submission, schedules and plans.

Nothing here runs on this machine; `pipelines.local` does that.
"""
