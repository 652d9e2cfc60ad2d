# Who reaches what. Load balancers: the networks that the configuration names. Nodes: each other, on
# the ports that they use, and the load balancers. Nothing else comes in.

locals {
  # docs/architecture/seams.md, "Ports": to control planes, from every node
  to_control_planes = {
    api        = { port = 6443, protocol = "tcp" }
    join       = { port = 30090, protocol = "tcp" }
    keyservice = { port = 9090, protocol = "tcp" }
    peers      = { port = 9091, protocol = "tcp" }
    grants     = { port = 9092, protocol = "tcp" }
  }
  # between control planes only
  among_control_planes = {
    etcd       = { port = 2379, protocol = "tcp" }
    etcd_peers = { port = 2380, protocol = "tcp" }
    policy     = { port = 30091, protocol = "tcp" }
  }
  # to every node, from every node
  to_nodes = {
    kubelet = { port = 10250, protocol = "tcp" }
    verify  = { port = 30081, protocol = "tcp" }
    mesh    = { port = 51820, protocol = "udp" }
  }
  roles = {
    "control-plane" = aws_security_group.control_planes.id
    "worker"        = aws_security_group.workers.id
  }
  # one entry a rule: to a role, from a role
  node_rules = merge(
    { for pair in setproduct(keys(local.to_control_planes), keys(local.roles)) :
      "control-plane-${pair[0]}-from-${pair[1]}" => merge(local.to_control_planes[pair[0]], { to = "control-plane", from = pair[1] })
    },
    { for name, rule in local.among_control_planes :
      "control-plane-${name}-from-control-plane" => merge(rule, { to = "control-plane", from = "control-plane" })
    },
    { for triple in setproduct(keys(local.to_nodes), keys(local.roles), keys(local.roles)) :
      "${triple[1]}-${triple[0]}-from-${triple[2]}" => merge(local.to_nodes[triple[0]], { to = triple[1], from = triple[2] })
    },
  )
  outside_rules = merge([for name, port in local.outside_ports :
    { for cidr in var.access[name] : "${name} ${cidr}" => { port = port, cidr = cidr } }
  ]...)
  inside_rules = merge([for name, port in local.inside_ports :
    { for cidr in var.internal_load_balancer ? var.access[name] : [] : "${name} ${cidr}" => { port = port, cidr = cidr } }
  ]...)
}

resource "aws_security_group" "control_planes" {
  name        = "${var.uid}-control-planes"
  description = "Control planes of ${var.uid}"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, local.integration, { Name = "${var.uid}-control-planes" })
}

resource "aws_security_group" "workers" {
  name        = "${var.uid}-workers"
  description = "Workers of ${var.uid}"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, local.integration, { Name = "${var.uid}-workers" })
}

resource "aws_security_group" "outside" {
  count       = var.internal_load_balancer ? 0 : 1
  name        = "${var.uid}-outside"
  description = "Public load balancer of ${var.uid}"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${var.uid}-outside" })
}

resource "aws_security_group" "inside" {
  name        = "${var.uid}-inside"
  description = "Internal load balancer of ${var.uid}"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${var.uid}-inside" })
}

resource "aws_vpc_security_group_ingress_rule" "nodes" {
  for_each                     = local.node_rules
  security_group_id            = local.roles[each.value.to]
  referenced_security_group_id = local.roles[each.value.from]
  ip_protocol                  = each.value.protocol
  from_port                    = each.value.port
  to_port                      = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "from_outside" {
  for_each                     = local.outside_ports
  security_group_id            = aws_security_group.control_planes.id
  referenced_security_group_id = aws_security_group.outside[0].id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_ingress_rule" "from_inside" {
  for_each                     = local.inside_ports
  security_group_id            = aws_security_group.control_planes.id
  referenced_security_group_id = aws_security_group.inside.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_ingress_rule" "outside" {
  for_each          = local.outside_rules
  security_group_id = aws_security_group.outside[0].id
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

resource "aws_vpc_security_group_ingress_rule" "inside" {
  for_each          = local.inside_rules
  security_group_id = aws_security_group.inside.id
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

# every node reaches the API server by the internal load balancer
resource "aws_vpc_security_group_ingress_rule" "inside_from_nodes" {
  for_each                     = local.roles
  security_group_id            = aws_security_group.inside.id
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = local.ports.api
  to_port                      = local.ports.api
}

resource "aws_vpc_security_group_ingress_rule" "node_ports" {
  for_each          = { for pair in setproduct(keys(local.roles), var.access.node_ports) : "${pair[0]} ${pair[1]}" => pair }
  security_group_id = local.roles[each.value[0]]
  cidr_ipv4         = each.value[1]
  ip_protocol       = "tcp"
  from_port         = 30100
  to_port           = 32767
}

resource "aws_vpc_security_group_egress_rule" "nodes" {
  for_each          = local.roles
  security_group_id = each.value
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_vpc_security_group_egress_rule" "outside" {
  for_each                     = local.outside_ports
  security_group_id            = aws_security_group.outside[0].id
  referenced_security_group_id = aws_security_group.control_planes.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_egress_rule" "inside" {
  for_each                     = local.inside_ports
  security_group_id            = aws_security_group.inside.id
  referenced_security_group_id = aws_security_group.control_planes.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}
