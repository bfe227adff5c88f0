locals {
  images = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"

  target = merge(
    {
      kind                     = "vertex"
      project                  = var.project
      region                   = var.region
      root                     = "gs://${google_storage_bucket.runs.name}/runs"
      service_account          = google_service_account.runner.email
      images                   = local.images
      beam                     = var.beam
      dataflow_service_account = google_service_account.worker.email
      labels                   = local.labels
    },
    var.network == "" ? {} : { network = var.network },
    length(var.secrets) == 0 ? {} : { secrets = var.secrets },
  )
}

output "targets" {
  description = "The file targets.yaml, which tells paper2hub of this account."
  value       = yamlencode({ (var.environment) = local.target })
}

output "data" {
  description = "Where raw datasets are put."
  value       = "gs://${google_storage_bucket.data.name}"
}

output "exports" {
  description = "Where finished models are put."
  value       = "gs://${google_storage_bucket.exports.name}"
}

output "builds" {
  description = "Where source code is put for Cloud Build."
  value       = "gs://${google_storage_bucket.builds.name}/source"
}

output "images" {
  description = "Prefix of the container images' names."
  value       = local.images
}

output "service_accounts" {
  description = "The identities: e-mail addresses of runner, worker, scheduler, builder and ci."
  value = {
    runner    = google_service_account.runner.email
    worker    = google_service_account.worker.email
    scheduler = google_service_account.scheduler.email
    builder   = google_service_account.builder.email
    ci        = google_service_account.ci.email
  }
}

output "github_variables" {
  description = "What the workflows read as variables, in the format of an environment file."
  value = join("\n", [
    "WORKLOAD_IDENTITY_PROVIDER='${join("", [for provider in google_iam_workload_identity_pool_provider.github : provider.name])}'",
    "BUILDER='${google_service_account.builder.email}'",
    "SCHEDULER='${google_service_account.scheduler.email}'",
    "CI='${google_service_account.ci.email}'",
    "IMAGES='${local.images}'",
    "TARGETS='${jsonencode({ (var.environment) = local.target })}'",
    "",
  ])
}
