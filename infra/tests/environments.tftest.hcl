# Plans without an account: `terraform init -backend=false && terraform test
# -var-file=environments/dev.tfvars`. What Google Cloud would answer is made up.

mock_provider "google" {
  # Names that the provider itself looks at.
  mock_resource "google_service_account" {
    defaults = {
      name   = "projects/example-project/serviceAccounts/part@example-project.iam.gserviceaccount.com"
      email  = "part@example-project.iam.gserviceaccount.com"
      member = "serviceAccount:part@example-project.iam.gserviceaccount.com"
    }
  }

  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

mock_provider "google" {
  alias = "billing"
}

variables {
  project              = "example-project"
  alert_emails         = ["somebody@example.com"]
  billing_account      = "012345-6789AB-CDEF01"
  github_repository    = "somebody/paper2hub"
  github_repository_id = "1234"
  secrets              = { HUB = "model-hub" }
}

run "describes_a_target" {
  assert {
    condition     = yamldecode(output.targets)[var.environment].kind == "vertex"
    error_message = "targets must describe an account of Vertex AI under the environment's name."
  }

  assert {
    condition     = yamldecode(output.targets)[var.environment].secrets.HUB == "model-hub"
    error_message = "targets must name the secrets."
  }

  assert {
    condition     = startswith(yamldecode(output.targets)[var.environment].root, "gs://example-project-paper2hub-${var.environment}-runs/")
    error_message = "targets must name the bucket of runs."
  }
}

run "lets_in_one_repository_and_branch" {
  assert {
    condition     = strcontains(google_iam_workload_identity_pool_provider.github["paper2hub-${var.environment}"].attribute_condition, "assertion.repository == 'somebody/paper2hub' && assertion.repository_id == '1234' && ")
    error_message = "Only the repository may come in."
  }

  assert {
    condition     = strcontains(google_iam_workload_identity_pool_provider.github["paper2hub-${var.environment}"].attribute_condition, "assertion.ref == 'refs/heads/main' && assertion.environment == '${var.environment}'")
    error_message = "Only pull requests and the environment on the main branch may come in."
  }
}

run "does_without_what_is_optional" {
  variables {
    alert_emails         = []
    billing_account      = ""
    github_repository    = ""
    github_repository_id = ""
    secrets              = {}
  }

  assert {
    condition     = length(google_billing_budget.month) == 0 && length(google_iam_workload_identity_pool.github) == 0
    error_message = "Without a billing account or a repository there must be no budget and no pool."
  }

  assert {
    condition     = !can(yamldecode(output.targets)[var.environment].secrets)
    error_message = "Without secrets targets must name none."
  }
}

run "refuses_a_project_that_is_none" {
  command = plan

  variables {
    project = "Project"
  }

  expect_failures = [var.project]
}

run "refuses_a_repository_without_its_number" {
  command = plan

  variables {
    github_repository_id = ""
  }

  expect_failures = [var.github_repository_id]
}

run "refuses_the_value_of_a_secret" {
  command = plan

  variables {
    secrets = { HUB = "A_Value" }
  }

  expect_failures = [var.secrets]
}

run "refuses_to_empty_the_buckets_of_prod" {
  command = plan

  variables {
    environment                  = "prod"
    delete_buckets_with_contents = true
    immutable_tags               = false
  }

  expect_failures = [var.delete_buckets_with_contents, var.immutable_tags]
}
