# What `constellation iam create` writes into the configuration, by the names of its keys.

output "configuration" {
  value = {
    instanceProfileControlPlanes = aws_iam_instance_profile.control_planes.name
    instanceProfileWorkers       = aws_iam_instance_profile.workers.name
  }
  description = "Keys of provider.aws and their values."
}

output "policies" {
  value = {
    control_planes = data.aws_iam_policy_document.control_planes.json
    workers        = data.aws_iam_policy_document.workers.json
    # of control planes too, if cloud_integration is true
    cloud_integration = data.aws_iam_policy_document.cloud_integration.json
    cloud_storage     = data.aws_iam_policy_document.cloud_storage.json
  }
  description = "The policies, for people and tests."
}
