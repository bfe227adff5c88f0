terraform {
  required_version = ">= 1.9.0, < 2.0.0"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "7.45.0"
    }
  }

  # The bucket of the state is named when the folder is initialised; see README.md.
  backend "gcs" {
    prefix = "paper2hub"
  }
}

provider "google" {
  project        = var.project
  region         = var.region
  default_labels = local.labels
}

# Budgets belong to a billing account, so their API has to be told which project asks.
provider "google" {
  alias                 = "billing"
  project               = var.project
  billing_project       = var.project
  user_project_override = true
}
