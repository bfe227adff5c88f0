# GitHub Actions comes in without a key: its signed token says which repository, branch and
# environment a job belongs to, and by that the job may become one identity or another.

locals {
  github = var.github_repository == "" ? {} : { (local.name) = var.github_repository }

  # Two kinds of job: pull requests, and the environment of this name on the main branch.
  may_become = var.github_repository == "" ? {} : {
    pull_request_as_ci = {
      account = google_service_account.ci.name
      kind    = "pull_request"
    }
    environment_as_builder = {
      account = google_service_account.builder.name
      kind    = "environment"
    }
    environment_as_scheduler = {
      account = google_service_account.scheduler.name
      kind    = "environment"
    }
  }
}

resource "google_iam_workload_identity_pool" "github" {
  for_each = local.github

  workload_identity_pool_id = "${each.key}-github"
  display_name              = "${each.key} GitHub"
  description               = "Jobs of GitHub Actions."

  depends_on = [google_project_service.required]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  #checkov:skip=CKV_GCP_125:It looks for one subject; the condition below asks for repository, its number, branch and environment.
  for_each = local.github

  workload_identity_pool_id          = google_iam_workload_identity_pool.github[each.key].workload_identity_pool_id
  workload_identity_pool_provider_id = "actions"
  display_name                       = "GitHub Actions"

  attribute_mapping = {
    "google.subject"  = "assertion.sub"
    "attribute.actor" = "assertion.actor"
    "attribute.kind"  = "assertion.event_name == 'pull_request' ? 'pull_request' : 'environment'"
  }

  # The number of the repository stays with it; its name can pass to somebody else.
  attribute_condition = join(" && ", [
    "assertion.repository == '${each.value}'",
    "assertion.repository_id == '${var.github_repository_id}'",
    "(assertion.event_name == 'pull_request' || (${join(" && ", [
      "assertion.ref == 'refs/heads/${var.github_branch}'",
      "assertion.environment == '${var.environment}'",
    ])}))",
  ])

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "github" {
  for_each = local.may_become

  service_account_id = each.value.account
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github[local.name].name}/attribute.kind/${each.value.kind}"
}
