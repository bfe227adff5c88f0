output "pipeline_root" {
  description = "Where pipelines keep what passes between their steps."
  value       = "gs://${google_storage_bucket.runs.name}"
}

output "data" {
  description = "Where raw datasets are put."
  value       = "gs://${google_storage_bucket.data.name}"
}

output "exports" {
  description = "Where finished models are put."
  value       = "gs://${google_storage_bucket.exports.name}"
}

output "images" {
  description = "Prefix of the container images' names."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "service_accounts" {
  description = "The identities: e-mail addresses of runner, worker and scheduler."
  value = {
    runner    = google_service_account.runner.email
    worker    = google_service_account.worker.email
    scheduler = google_service_account.scheduler.email
  }
}
