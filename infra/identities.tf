# One identity for each part, so that none holds more than its part needs. What each role is for
# stands in tests/test_infrastructure.py, which refuses any other.
#   runner     runs the steps of a pipeline
#   worker     is what Dataflow's machines run as
#   scheduler  submits pipelines and keeps schedules
#   builder    builds and pushes images
#   ci         looks at pull requests, and changes nothing

resource "google_service_account" "runner" {
  account_id   = "${local.name}-runner"
  display_name = "paper2hub ${var.environment}: runs the steps of pipelines"
  depends_on   = [google_project_service.required]
}

resource "google_service_account" "worker" {
  account_id   = "${local.name}-worker"
  display_name = "paper2hub ${var.environment}: machines of Dataflow jobs"
  depends_on   = [google_project_service.required]
}

resource "google_service_account" "scheduler" {
  account_id   = "${local.name}-scheduler"
  display_name = "paper2hub ${var.environment}: submits pipelines and keeps schedules"
  depends_on   = [google_project_service.required]
}

resource "google_service_account" "builder" {
  account_id   = "${local.name}-builder"
  display_name = "paper2hub ${var.environment}: builds and pushes images"
  depends_on   = [google_project_service.required]
}

resource "google_service_account" "ci" {
  account_id   = "${local.name}-ci"
  display_name = "paper2hub ${var.environment}: looks at pull requests"
  depends_on   = [google_project_service.required]
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
    scheduler_logs = {
      role   = "roles/logging.logWriter"
      member = google_service_account.scheduler.member
    }
    builder_logs = {
      role   = "roles/logging.logWriter"
      member = google_service_account.builder.member
    }
    ci_vertex_ai = {
      role   = "roles/aiplatform.viewer"
      member = google_service_account.ci.member
    }
    ci_logs = {
      role   = "roles/logging.logWriter"
      member = google_service_account.ci.member
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
    runner_sees_runs = {
      bucket = google_storage_bucket.runs.name
      role   = "roles/storage.legacyBucketReader"
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
    scheduler_reads_builds = {
      bucket = google_storage_bucket.builds.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.scheduler.member
    }
    builder_reads_builds = {
      bucket = google_storage_bucket.builds.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.builder.member
    }
    ci_reads_builds = {
      bucket = google_storage_bucket.builds.name
      role   = "roles/storage.objectViewer"
      member = google_service_account.ci.member
    }
  }

  image_roles = {
    runner_pulls = {
      role   = "roles/artifactregistry.reader"
      member = google_service_account.runner.member
    }
    worker_pulls = {
      role   = "roles/artifactregistry.reader"
      member = google_service_account.worker.member
    }
    scheduler_asks_digests = {
      role   = "roles/artifactregistry.reader"
      member = google_service_account.scheduler.member
    }
    builder_pushes = {
      role   = "roles/artifactregistry.writer"
      member = google_service_account.builder.member
    }
    ci_asks_digests = {
      role   = "roles/artifactregistry.reader"
      member = google_service_account.ci.member
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
}

resource "google_project_iam_member" "project" {
  #checkov:skip=CKV_GCP_49:dataflow.developer impersonates nobody by itself; the one account it may act as is named in may_act_as.
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

resource "google_artifact_registry_repository_iam_member" "images" {
  for_each = local.image_roles

  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = each.value.role
  member     = each.value.member
}

resource "google_service_account_iam_member" "act_as" {
  for_each = local.may_act_as

  service_account_id = each.value.account
  role               = "roles/iam.serviceAccountUser"
  member             = each.value.member
}

# Their values are added by hand, so that none is in the state of Terraform.
resource "google_secret_manager_secret" "step" {
  for_each = toset(values(var.secrets))

  secret_id = each.value

  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }

  depends_on = [google_project_service.required]
}

resource "google_secret_manager_secret_iam_member" "runner" {
  for_each = google_secret_manager_secret.step

  secret_id = each.value.id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.runner.member
}
