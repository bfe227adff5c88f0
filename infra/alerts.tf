resource "google_monitoring_notification_channel" "email" {
  for_each = toset(var.alert_emails)

  display_name = "${local.name}: ${each.value}"
  type         = "email"
  labels       = { email_address = each.value }

  depends_on = [google_project_service.required]
}

locals {
  channels = [for channel in google_monitoring_notification_channel.email : channel.id]
}

resource "google_monitoring_alert_policy" "failed_run" {
  display_name          = "${local.name}: a pipeline run failed"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "A run of Vertex AI Pipelines ended as failed"

    condition_matched_log {
      filter = join(" AND ", [
        "resource.type=\"aiplatform.googleapis.com/PipelineJob\"",
        "resource.labels.location=\"${var.region}\"",
        "log_id(\"aiplatform.googleapis.com/pipeline_job_events\")",
        "jsonPayload.state=\"PIPELINE_STATE_FAILED\"",
      ])
      label_extractors = {
        run = "EXTRACT(resource.labels.pipeline_job_id)"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    subject   = "${local.name}: a pipeline run failed"
    content   = "Run $${log.extracted_label.run} failed. [Its steps and their logs](https://console.cloud.google.com/vertex-ai/pipelines/locations/${var.region}/runs/$${log.extracted_label.run}?project=${var.project})."
  }

  alert_strategy {
    auto_close = "86400s"

    notification_rate_limit {
      period = "300s"
    }
  }

  depends_on = [google_project_service.required]
}

resource "google_monitoring_alert_policy" "failed_dataflow_job" {
  display_name          = "${local.name}: a Dataflow job failed"
  combiner              = "OR"
  severity              = "WARNING" # the run that it belongs to fails too, or tries again
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "A job ended as failed"

    condition_threshold {
      filter          = "resource.type=\"dataflow_job\" AND metric.type=\"dataflow.googleapis.com/job/is_failed\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  depends_on = [google_project_service.required]
}

data "google_project" "this" {
  count = var.billing_account == "" ? 0 : 1

  project_id = var.project
  depends_on = [google_project_service.required]
}

resource "google_billing_budget" "month" {
  count    = var.billing_account == "" ? 0 : 1
  provider = google.billing

  billing_account = var.billing_account
  display_name    = local.name

  budget_filter {
    projects               = ["projects/${data.google_project.this[0].number}"]
    calendar_period        = "MONTH"
    credit_types_treatment = "EXCLUDE_ALL_CREDITS"
  }

  amount {
    specified_amount {
      units = tostring(var.budget) # in the currency of the billing account
    }
  }

  dynamic "threshold_rules" {
    for_each = var.budget_thresholds

    content {
      threshold_percent = threshold_rules.value
    }
  }

  # While there is still time to pause a schedule.
  threshold_rules {
    threshold_percent = 1
    spend_basis       = "FORECASTED_SPEND"
  }

  dynamic "all_updates_rule" {
    for_each = length(local.channels) == 0 ? [] : [local.channels]

    content {
      monitoring_notification_channels = all_updates_rule.value
    }
  }

  depends_on = [google_project_service.required]
}
