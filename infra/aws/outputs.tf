output "uid" {
  value       = var.uid
  description = "Name of all resources."
}

output "endpoint" {
  value       = "${local.outside_name}:${local.ports.api}"
  description = "host:port of the API server as users reach it."
}

output "in_cluster_endpoint" {
  value       = "${aws_lb.inside.dns_name}:${local.ports.api}"
  description = "host:port of the API server as nodes reach it."
}

output "api_sans" {
  value       = distinct(compact(concat([var.custom_endpoint, local.balancer.dns_name, aws_lb.inside.dns_name], var.extra_names)))
  description = "Names for the API server's certificate."
}

output "node_cidr" {
  value       = var.node_cidr
  description = "Addresses of the nodes."
}

output "groups" {
  value       = { for name, g in aws_autoscaling_group.this : name => g.name }
  description = "Name of the autoscaling group of each node group."
}

output "load_balancer" {
  value       = local.balancer.arn
  description = "ARN of the load balancer that users reach."
}

output "details" {
  value = {
    region            = var.region
    vpc               = local.vpc_id
    host              = local.balancer.dns_name
    init_target_group = try(aws_lb_target_group.outside["init"].arn, aws_lb_target_group.inside["init"].arn, "")
  }
  description = "Region, VPC, the load balancer's own host name, and the target group of port 9000 (empty: closed), for `constellation`."
}

locals {
  balancer     = var.internal_load_balancer ? aws_lb.inside : aws_lb.outside[0]
  outside_name = var.custom_endpoint != "" ? var.custom_endpoint : local.balancer.dns_name
}
