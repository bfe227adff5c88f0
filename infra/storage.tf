# Raw datasets: the pipelines read them and never write.
resource "google_storage_bucket" "data" {
  #checkov:skip=CKV_GCP_62:Cloud Audit Logs (main.tf) say who wrote; usage logs would add nothing.
  name                        = "${var.project}-${local.name}-data"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.delete_buckets_with_contents

  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = var.soft_delete_days * 24 * 60 * 60
  }

  lifecycle_rule {
    condition {
      with_state                 = "ARCHIVED"
      days_since_noncurrent_time = var.noncurrent_kept_days
    }
    action {
      type = "Delete"
    }
  }

  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  depends_on = [google_project_service.required]
}

# The pipeline root: everything that passes between steps.
resource "google_storage_bucket" "runs" {
  #checkov:skip=CKV_GCP_62:Cloud Audit Logs (main.tf) say who wrote; usage logs would add nothing.
  #checkov:skip=CKV_GCP_78:Each run writes to a path of its own and can be run again; versions would only double the bill.
  name                        = "${var.project}-${local.name}-runs"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.delete_buckets_with_contents

  soft_delete_policy {
    retention_duration_seconds = var.soft_delete_days * 24 * 60 * 60
  }

  lifecycle_rule {
    condition {
      age = var.runs_kept_days
    }
    action {
      type = "Delete"
    }
  }

  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  depends_on = [google_project_service.required]
}

# Finished models; every version is kept, older ones where keeping is cheap.
resource "google_storage_bucket" "exports" {
  #checkov:skip=CKV_GCP_62:Cloud Audit Logs (main.tf) say who wrote; usage logs would add nothing.
  name                        = "${var.project}-${local.name}-exports"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.delete_buckets_with_contents

  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = var.soft_delete_days * 24 * 60 * 60
  }

  lifecycle_rule {
    condition {
      with_state                 = "ARCHIVED"
      days_since_noncurrent_time = var.noncurrent_kept_days
    }
    action {
      type          = "SetStorageClass"
      storage_class = "COLDLINE"
    }
  }

  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  depends_on = [google_project_service.required]
}

# Source code on its way to Cloud Build.
resource "google_storage_bucket" "builds" {
  #checkov:skip=CKV_GCP_62:Cloud Audit Logs (main.tf) say who wrote; usage logs would add nothing.
  #checkov:skip=CKV_GCP_78:What lies here is a copy of the repository that a build reads once.
  name                        = "${var.project}-${local.name}-builds"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  soft_delete_policy {
    retention_duration_seconds = 0
  }

  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "Delete"
    }
  }

  depends_on = [google_project_service.required]
}

resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84:The images hold open-source packages and this code; Google's own encryption at rest is enough, and a key of ours could lock every run out.
  location      = var.region
  repository_id = local.name
  description   = "Container images of the pipeline steps."
  format        = "DOCKER"

  docker_config {
    immutable_tags = var.immutable_tags
  }

  vulnerability_scanning_config {
    enablement_config = "INHERITED" # enabled with containerscanning.googleapis.com
  }

  # Schedules name images by digest, so the last ones stay, whatever else is deleted.
  cleanup_policies {
    id     = "recent"
    action = "KEEP"

    most_recent_versions {
      keep_count = var.images_kept
    }
  }

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
