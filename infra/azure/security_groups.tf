# Who reaches what. The load balancers keep the senders' addresses, so these rules bound them as
# well. Azure's own last rules would let everything in the network in: one before them does not.

locals {
  # docs/architecture/seams.md, "Ports"; in order of priority
  node_rules = {
    "to-control-planes" = {
      priority = 100
      to       = ["control-plane"]
      from     = ["control-plane", "worker"]
      protocol = "Tcp"
      ports    = ["6443", "30090", "9090", "9091", "9092"]
    }
    "among-control-planes" = {
      priority = 110
      to       = ["control-plane"]
      from     = ["control-plane"]
      protocol = "Tcp"
      ports    = ["2379", "2380", "30091"]
    }
    "to-nodes" = {
      priority = 120
      to       = ["control-plane", "worker"]
      from     = ["control-plane", "worker"]
      protocol = "Tcp"
      ports    = ["10250", "30081"]
    }
    "mesh" = {
      priority = 130
      to       = ["control-plane", "worker"]
      from     = ["control-plane", "worker"]
      protocol = "Udp"
      ports    = ["51820"]
    }
  }
  order = { for i, name in sort(keys(local.ports)) : name => 200 + 10 * i }
}

# network interfaces join the group of their role: rules name roles by it
resource "azurerm_application_security_group" "role" {
  for_each            = toset(["control-plane", "worker"])
  name                = "${var.uid}-${each.key}"
  resource_group_name = var.resource_group
  location            = var.region
  tags                = local.tags
}

resource "azurerm_network_security_group" "nodes" {
  name                = var.uid
  resource_group_name = var.resource_group
  location            = var.region
  tags                = local.tags
}

resource "azurerm_network_security_rule" "nodes" {
  for_each                                   = local.node_rules
  name                                       = each.key
  resource_group_name                        = var.resource_group
  network_security_group_name                = azurerm_network_security_group.nodes.name
  priority                                   = each.value.priority
  direction                                  = "Inbound"
  access                                     = "Allow"
  protocol                                   = each.value.protocol
  source_port_range                          = "*"
  destination_port_ranges                    = each.value.ports
  source_application_security_group_ids      = [for role in each.value.from : azurerm_application_security_group.role[role].id]
  destination_application_security_group_ids = [for role in each.value.to : azurerm_application_security_group.role[role].id]
}

resource "azurerm_network_security_rule" "outside" {
  for_each                                   = local.asked_for
  name                                       = each.key
  resource_group_name                        = var.resource_group
  network_security_group_name                = azurerm_network_security_group.nodes.name
  priority                                   = local.order[each.key]
  direction                                  = "Inbound"
  access                                     = "Allow"
  protocol                                   = "Tcp"
  source_port_range                          = "*"
  destination_port_range                     = tostring(each.value)
  source_address_prefixes                    = var.access[each.key]
  destination_application_security_group_ids = [azurerm_application_security_group.role["control-plane"].id]
}

resource "azurerm_network_security_rule" "node_ports" {
  count                       = length(var.access.node_ports) > 0 ? 1 : 0
  name                        = "node-ports"
  resource_group_name         = var.resource_group
  network_security_group_name = azurerm_network_security_group.nodes.name
  priority                    = 300
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_range      = "30100-32767"
  source_address_prefixes     = var.access.node_ports
  destination_address_prefix  = "VirtualNetwork"
}

resource "azurerm_network_security_rule" "probes" {
  name                                       = "probes"
  resource_group_name                        = var.resource_group
  network_security_group_name                = azurerm_network_security_group.nodes.name
  priority                                   = 400
  direction                                  = "Inbound"
  access                                     = "Allow"
  protocol                                   = "Tcp"
  source_port_range                          = "*"
  destination_port_ranges                    = sort([for port in values(merge(local.asked_for, local.inside_ports)) : tostring(port)])
  source_address_prefix                      = "AzureLoadBalancer"
  destination_application_security_group_ids = [azurerm_application_security_group.role["control-plane"].id]
}

# a load balancer that Azure's own controller manager makes asks the workers' NodePorts
resource "azurerm_network_security_rule" "service_probes" {
  count                                      = var.cloud_integration ? 1 : 0
  name                                       = "service-probes"
  resource_group_name                        = var.resource_group
  network_security_group_name                = azurerm_network_security_group.nodes.name
  priority                                   = 410
  direction                                  = "Inbound"
  access                                     = "Allow"
  protocol                                   = "Tcp"
  source_port_range                          = "*"
  destination_port_range                     = "30100-32767"
  source_address_prefix                      = "AzureLoadBalancer"
  destination_application_security_group_ids = [azurerm_application_security_group.role["worker"].id]
}

resource "azurerm_network_security_rule" "nothing_else" {
  name                        = "nothing-else"
  resource_group_name         = var.resource_group
  network_security_group_name = azurerm_network_security_group.nodes.name
  priority                    = 4096
  direction                   = "Inbound"
  access                      = "Deny"
  protocol                    = "*"
  source_port_range           = "*"
  destination_port_range      = "*"
  source_address_prefix       = "*"
  destination_address_prefix  = "*"
}
