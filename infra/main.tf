locals {
  name   = "paper2hub-${var.environment}"
  labels = { application = "paper2hub", environment = var.environment }

  services = toset([
    "aiplatform.googleapis.com",
    "artifactregistry.googleapis.com",
    "compute.googleapis.com",
    "dataflow.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "storage.googleapis.com",
  ])
}

resource "google_project_service" "required" {
  for_each = local.services

  service            = each.value
  disable_on_destroy = false # others in the project may use it
}

# Raw datasets: the pipelines read them and never write.
resource "google_storage_bucket" "data" {
  name                        = "${var.project}-${local.name}-data"
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.delete_buckets_with_contents

  versioning {
    enabled = true
  }

  depends_on = [google_project_service.required]
}

# The pipeline root: everything that passes between steps.
resource "google_storage_bucket" "runs" {
  name                        = "${var.project}-${local.name}-runs"
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.delete_buckets_with_contents

  lifecycle_rule {
    condition {
      age = var.runs_kept_days
    }
    action {
      type = "Delete"
    }
  }

  depends_on = [google_project_service.required]
}

# Finished models; every version is kept.
resource "google_storage_bucket" "exports" {
  name                        = "${var.project}-${local.name}-exports"
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.delete_buckets_with_contents

  versioning {
    enabled = true
  }

  depends_on = [google_project_service.required]
}

resource "google_artifact_registry_repository" "images" {
  location      = var.region
  repository_id = local.name
  description   = "Container images of the pipeline steps."
  format        = "DOCKER"
  labels        = local.labels

  cleanup_policies {
    id     = "untagged"
    action = "DELETE"

    condition {
      tag_state  = "UNTAGGED"
      older_than = "${var.untagged_images_kept_days * 24 * 60 * 60}s"
    }
  }

  depends_on = [google_project_service.required]
}
