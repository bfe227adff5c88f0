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
