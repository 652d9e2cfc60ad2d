# Who reaches what. Nodes: each other, on the ports that they use, and the load balancer, which has
# its own lists of who may reach it. Nothing else comes in.

locals {
  # docs/architecture/seams.md, "Ports"
  to_control_planes    = { "tcp-6443" = 6443, "tcp-30090" = 30090, "tcp-9090" = 9090, "tcp-9091" = 9091, "tcp-9092" = 9092 }
  among_control_planes = { "tcp-2379" = 2379, "tcp-2380" = 2380, "tcp-30091" = 30091 }
  to_nodes             = { "tcp-10250" = 10250, "tcp-30081" = 30081, "udp-51820" = 51820 }
  roles                = ["control-plane", "worker"]

  node_rules = merge(
    { for pair in setproduct(keys(local.to_control_planes), local.roles) :
      "control-plane ${pair[0]} ${pair[1]}" => { to = "control-plane", from = pair[1], key = pair[0], port = local.to_control_planes[pair[0]] }
    },
    { for key, port in local.among_control_planes :
      "control-plane ${key} control-plane" => { to = "control-plane", from = "control-plane", key = key, port = port }
    },
    { for triple in setproduct(keys(local.to_nodes), local.roles, local.roles) :
      "${triple[1]} ${triple[0]} ${triple[2]}" => { to = triple[1], from = triple[2], key = triple[0], port = local.to_nodes[triple[0]] }
    },
  )
}

# without the default rules: they let everything out, which is said below, and more than once
resource "openstack_networking_secgroup_v2" "role" {
  for_each             = toset(local.roles)
  name                 = "${var.uid}-${each.key}"
  description          = "Nodes of ${var.uid} with role ${each.key}"
  delete_default_rules = true
  tags                 = local.tags
}

resource "openstack_networking_secgroup_rule_v2" "out" {
  for_each          = toset(local.roles)
  description       = "nodes reach what they fetch"
  direction         = "egress"
  ethertype         = "IPv4"
  security_group_id = openstack_networking_secgroup_v2.role[each.key].id
}

resource "openstack_networking_secgroup_rule_v2" "nodes" {
  for_each          = local.node_rules
  description       = each.key
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = split("-", each.value.key)[0]
  port_range_min    = each.value.port
  port_range_max    = each.value.port
  remote_group_id   = openstack_networking_secgroup_v2.role[each.value.from].id
  security_group_id = openstack_networking_secgroup_v2.role[each.value.to].id
}

# the load balancer's own machines stand in the nodes' subnet, with addresses that only it knows
resource "openstack_networking_secgroup_rule_v2" "balancer" {
  for_each          = local.listeners
  description       = "${each.key} from the load balancer"
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = "tcp"
  port_range_min    = each.value
  port_range_max    = each.value
  remote_ip_prefix  = var.node_cidr
  security_group_id = openstack_networking_secgroup_v2.role["control-plane"].id
}

resource "openstack_networking_secgroup_rule_v2" "node_ports" {
  for_each          = { for pair in setproduct(local.roles, var.access.node_ports) : "${pair[0]} ${pair[1]}" => { role = pair[0], cidr = pair[1] } }
  description       = "NodePorts from ${each.value.cidr}"
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = "tcp"
  port_range_min    = 30100
  port_range_max    = 32767
  remote_ip_prefix  = each.value.cidr
  security_group_id = openstack_networking_secgroup_v2.role[each.value.role].id
}

# their machines stand in the nodes' subnet as well; the controller manager changes no group (ADR 122)
resource "openstack_networking_secgroup_rule_v2" "services" {
  for_each          = { for pair in setproduct(local.roles, var.cloud_integration ? ["tcp", "udp"] : []) : "${pair[0]} ${pair[1]}" => { role = pair[0], protocol = pair[1] } }
  description       = "load balancers of Services, ${each.value.protocol}"
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = each.value.protocol
  port_range_min    = 30100
  port_range_max    = 32767
  remote_ip_prefix  = var.node_cidr
  security_group_id = openstack_networking_secgroup_v2.role[each.value.role].id
}
