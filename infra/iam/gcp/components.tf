# What Google's own disk driver may do, which runs on control planes if the configuration wants it:
# the calls of permissions.tf.json, and act as the workers' service account, without which no disk is
# attached to machines that run as it.

variable "cloud_integration" {
  type        = bool
  description = "True: Google's own disk driver runs in the cluster (provider.gcp.cloudIntegration), with the control planes' service account."
  default     = false
}

resource "google_project_iam_custom_role" "components" {
  for_each    = var.cloud_integration ? local.component_calls : {}
  role_id     = "${replace(var.name, "-", "_")}_components_${each.key}"
  title       = "Constellation ${var.name}: Google's own components, ${replace(each.key, "_", " ")}"
  description = "What Google's own components call, and nothing else"
  permissions = distinct(flatten([for call in each.value : concat([call.permission], call.linked)]))
}

resource "google_project_iam_member" "components" {
  count   = var.cloud_integration ? 1 : 0
  project = var.project
  role    = google_project_iam_custom_role.components["project"].name
  member  = "serviceAccount:${google_service_account.this["control_planes"].email}"
}

resource "google_service_account_iam_member" "components" {
  count              = var.cloud_integration ? 1 : 0
  service_account_id = google_service_account.this["workers"].name
  role               = google_project_iam_custom_role.components["worker_account"].name
  member             = "serviceAccount:${google_service_account.this["control_planes"].email}"
}
