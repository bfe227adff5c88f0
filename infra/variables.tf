variable "project" {
  description = "Identifier of the Google Cloud project that everything belongs to."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project must be a project identifier: 6 to 30 lower-case letters, digits and hyphens, beginning with a letter."
  }
}

variable "region" {
  description = "Region of pipelines, buckets and images; training data does not leave it."
  type        = string
  default     = "europe-west4"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region must be the name of a region, such as europe-west4; a zone has one letter too many."
  }
}

variable "environment" {
  description = "Which copy of the infrastructure this is; part of every name."
  type        = string

  validation {
    condition     = contains(["dev", "prod"], var.environment)
    error_message = "environment must be dev or prod."
  }
}

variable "runs_kept_days" {
  description = "Days after which the intermediate artifacts of a run are deleted."
  type        = number
  default     = 90

  validation {
    condition     = var.runs_kept_days >= 1 && floor(var.runs_kept_days) == var.runs_kept_days
    error_message = "runs_kept_days must be a whole number of at least 1."
  }
}

variable "untagged_images_kept_days" {
  description = "Days after which container images without a tag are deleted."
  type        = number
  default     = 30

  validation {
    condition     = var.untagged_images_kept_days >= 1 && floor(var.untagged_images_kept_days) == var.untagged_images_kept_days
    error_message = "untagged_images_kept_days must be a whole number of at least 1."
  }
}

variable "delete_buckets_with_contents" {
  description = "Whether terraform destroy may delete buckets that still hold something."
  type        = bool
  default     = false

  validation {
    condition     = !(var.delete_buckets_with_contents && var.environment == "prod")
    error_message = "delete_buckets_with_contents must be false in prod."
  }
}

variable "immutable_tags" {
  description = "Whether a tag means one image for ever. Pipelines name images by digest in any case."
  type        = bool
  default     = true

  validation {
    condition     = var.immutable_tags || var.environment != "prod"
    error_message = "immutable_tags must be true in prod."
  }
}

variable "images_kept" {
  description = "How many of the latest versions of each image stay, whatever else is deleted."
  type        = number
  default     = 10

  validation {
    condition     = var.images_kept >= 1 && floor(var.images_kept) == var.images_kept
    error_message = "images_kept must be a whole number of at least 1."
  }
}

variable "noncurrent_kept_days" {
  description = "Days after which a replaced dataset is deleted, and a replaced model moves to cold storage."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_kept_days >= 1 && floor(var.noncurrent_kept_days) == var.noncurrent_kept_days
    error_message = "noncurrent_kept_days must be a whole number of at least 1."
  }
}

variable "soft_delete_days" {
  description = "Days in which a deleted object can be brought back; 0 for none."
  type        = number
  default     = 7

  validation {
    condition     = var.soft_delete_days == 0 || (var.soft_delete_days >= 7 && var.soft_delete_days <= 90)
    error_message = "soft_delete_days must be 0, or 7 to 90."
  }
}

variable "beam" {
  description = "Where preprocess runs Beam: local, on the machine of the step, or dataflow."
  type        = string
  default     = "local"

  validation {
    condition     = contains(["local", "dataflow"], var.beam)
    error_message = "beam must be local or dataflow."
  }
}

variable "network" {
  description = "Full name of the VPC network that steps are in; empty for Google's own."
  type        = string
  default     = ""

  validation {
    condition     = var.network == "" || can(regex("^projects/[0-9]+/global/networks/[a-z][a-z0-9-]*$", var.network))
    error_message = "network must be empty or projects/PROJECT_NUMBER/global/networks/NAME."
  }
}

variable "secrets" {
  description = "Environment variables of the steps -> names of secrets in Secret Manager, such as { HUB = \"model-hub\" }; never values."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for variable in keys(var.secrets) : can(regex("^[A-Z_][A-Z0-9_]*$", variable))])
    error_message = "secrets must have names of environment variables as keys, in capitals."
  }

  validation {
    condition     = alltrue([for name in values(var.secrets) : can(regex("^[a-z][a-z0-9-]{0,62}$", name))])
    error_message = "secrets must name secrets by up to 63 lower-case letters, digits and hyphens."
  }
}

variable "alert_emails" {
  description = "Addresses that hear of failed runs and of the budget; at most five, as budgets have it."
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.alert_emails) <= 5 && alltrue([for address in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", address))])
    error_message = "alert_emails must be up to five e-mail addresses."
  }
}

variable "billing_account" {
  description = "Billing account to set the budget on, such as 012345-6789AB-CDEF01; empty for no budget."
  type        = string
  default     = ""

  validation {
    condition     = var.billing_account == "" || can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "billing_account must be empty or three groups of six hexadecimal digits."
  }
}

variable "budget" {
  description = "What a month may cost, in whole units of the billing account's currency."
  type        = number
  default     = 100

  validation {
    condition     = var.budget >= 1 && floor(var.budget) == var.budget
    error_message = "budget must be a whole number of at least 1."
  }
}

variable "budget_thresholds" {
  description = "Parts of the budget at which mail is sent; 1 is all of it."
  type        = list(number)
  default     = [0.5, 0.9, 1]

  validation {
    condition     = length(var.budget_thresholds) > 0 && alltrue([for part in var.budget_thresholds : part > 0 && part <= 2])
    error_message = "budget_thresholds must be numbers above 0, up to 2."
  }
}

variable "github_repository" {
  description = "Repository whose GitHub Actions may come in, as OWNER/NAME; empty for none."
  type        = string
  default     = ""

  validation {
    condition     = var.github_repository == "" || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "github_repository must be empty or OWNER/NAME."
  }
}

variable "github_repository_id" {
  description = "Number of that repository, which `gh api repos/OWNER/NAME --jq .id` tells."
  type        = string
  default     = ""

  validation {
    condition     = can(regex(var.github_repository == "" ? "^[0-9]*$" : "^[0-9]+$", var.github_repository_id))
    error_message = "github_repository_id must be a number wherever github_repository is given."
  }
}

variable "github_branch" {
  description = "Branch whose jobs may build images and submit runs."
  type        = string
  default     = "main"

  validation {
    condition     = can(regex("^[A-Za-z0-9._/-]+$", var.github_branch))
    error_message = "github_branch must be the name of a branch."
  }
}
