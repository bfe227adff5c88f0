terraform {
  required_version = ">= 1.9.0, < 2.0.0"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "6.12.0"
    }
  }

  # The bucket of the state is named when the folder is initialised; see README.md.
  backend "gcs" {
    prefix = "paper2hub"
  }
}

provider "google" {
  project = var.project
  region  = var.region
}
