# Three identities, so that none holds more than its part needs: the runner runs the steps of a
# pipeline, the worker is what Dataflow's machines run as, the scheduler only starts pipelines.

resource "google_service_account" "runner" {
  account_id   = "${local.name}-runner"
  display_name = "paper2hub ${var.environment}: runs the steps of pipelines"
}

resource "google_service_account" "worker" {
  account_id   = "${local.name}-worker"
  display_name = "paper2hub ${var.environment}: machines of Dataflow jobs"
}

resource "google_service_account" "scheduler" {
  account_id   = "${local.name}-scheduler"
  display_name = "paper2hub ${var.environment}: starts pipelines on schedule"
}

locals {
  # Roles that Google Cloud grants on a whole project only.
  project_roles = {
    runner_vertex_ai = {
      role   = "roles/aiplatform.user"
      member = google_service_account.runner.member
    }
    runner_dataflow = {
      role   = "roles/dataflow.developer"
      member = google_service_account.runner.member
    }
    runner_logs = {
      role   = "roles/logging.logWriter"
      member = google_service_account.runner.member
    }
    worker_dataflow = {
      role   = "roles/dataflow.worker"
      member = google_service_account.worker.member
    }
    scheduler_vertex_ai = {
      role   = "roles/aiplatform.user"
      member = google_service_account.scheduler.member
    }
  }

  bucket_roles = {
    runner_reads_data = {
      bucket = google_storage_bucket.data.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.runner.member
    }
    runner_writes_runs = {
      bucket = google_storage_bucket.runs.name
      role   = "roles/storage.objectUser"
      member = google_service_account.runner.member
    }
    runner_adds_exports = {
      bucket = google_storage_bucket.exports.name
      role   = "roles/storage.objectCreator"
      member = google_service_account.runner.member
    }
    worker_reads_data = {
      bucket = google_storage_bucket.data.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.worker.member
    }
    worker_writes_runs = {
      bucket = google_storage_bucket.runs.name
      role   = "roles/storage.objectUser"
      member = google_service_account.worker.member
    }
    scheduler_reads_runs = {
      bucket = google_storage_bucket.runs.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.scheduler.member
    }
  }

  # Who may start work that runs as whom.
  may_act_as = {
    runner_as_worker = {
      account = google_service_account.worker.name
      member  = google_service_account.runner.member
    }
    runner_as_itself = { # the custom jobs that a pipeline's step starts
      account = google_service_account.runner.name
      member  = google_service_account.runner.member
    }
    scheduler_as_runner = {
      account = google_service_account.runner.name
      member  = google_service_account.scheduler.member
    }
  }

  pulls_images = {
    runner = google_service_account.runner.member
    worker = google_service_account.worker.member
  }
}

resource "google_project_iam_member" "project" {
  for_each = local.project_roles

  project = var.project
  role    = each.value.role
  member  = each.value.member
}

resource "google_storage_bucket_iam_member" "bucket" {
  for_each = local.bucket_roles

  bucket = each.value.bucket
  role   = each.value.role
  member = each.value.member
}

resource "google_service_account_iam_member" "act_as" {
  for_each = local.may_act_as

  service_account_id = each.value.account
  role               = "roles/iam.serviceAccountUser"
  member             = each.value.member
}

resource "google_artifact_registry_repository_iam_member" "reader" {
  for_each = local.pulls_images

  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = each.value
}
