# Names and small decisions that the other files share.

locals {
  tags = merge(var.tags, { "constellation-uid" = var.uid })

  # what AWS' own cloud controller manager knows a cluster's machines, subnets and their firewall by,
  # if the cluster has one. Its other tag has "/" in its name, which instance metadata cannot show
  integration = { "KubernetesCluster" = var.uid }

  zones          = sort(distinct(flatten([for g in values(var.node_groups) : g.zones])))
  make_network   = var.existing_network == null
  vpc_id         = local.make_network ? aws_vpc.this[0].id : var.existing_network.vpc_id
  node_subnets   = local.make_network ? { for z in local.zones : z => aws_subnet.nodes[z].id } : var.existing_network.subnets
  public_subnets = local.make_network ? { for z in local.zones : z => try(aws_subnet.public[z].id, "") } : var.existing_network.public_subnets

  # ports of control planes that the load balancer leads to, and who may reach them
  ports = {
    api      = 6443
    init     = 9000
    recovery = 9999
    verify   = 30081
    policy   = 30091
  }
  asked_for = { for name, port in local.ports : name => port if length(var.access[name]) > 0 && !(name == "init" && var.initialised) }

  # inside the cluster the API server has an address of its own: no way out and in again
  inside_ports  = var.internal_load_balancer ? merge(local.asked_for, { api = local.ports.api }) : { api = local.ports.api }
  outside_ports = var.internal_load_balancer ? {} : local.asked_for
}
