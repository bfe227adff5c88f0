locals {
  name   = "paper2hub-${var.environment}"
  labels = { application = "paper2hub", environment = var.environment }

  services = toset([
    "aiplatform.googleapis.com",
    "artifactregistry.googleapis.com",
    "billingbudgets.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "compute.googleapis.com",
    "containerscanning.googleapis.com",
    "dataflow.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",
  ])
}

resource "google_project_service" "required" {
  for_each = local.services

  service            = each.value
  disable_on_destroy = false # others in the project may use it
}

# Who wrote objects, read secrets or took on an identity; reads of objects are left out, for a
# training that reads every shard many times would pay for a line each time.
resource "google_project_iam_audit_config" "audit" {
  for_each = {
    "iam.googleapis.com"           = ["DATA_READ", "DATA_WRITE"]
    "secretmanager.googleapis.com" = ["DATA_READ", "DATA_WRITE"]
    "storage.googleapis.com"       = ["DATA_WRITE"]
    "sts.googleapis.com"           = ["DATA_READ", "DATA_WRITE"]
  }

  project = var.project
  service = each.key

  dynamic "audit_log_config" {
    for_each = each.value

    content {
      log_type = audit_log_config.value
    }
  }

  depends_on = [google_project_service.required]
}
