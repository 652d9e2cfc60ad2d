# Standard load balancers before the control planes: TLS and attestation end at the nodes. Each port
# has its own probe, so that a node gets what it serves.

resource "azurerm_public_ip" "outside" {
  count               = var.internal_load_balancer ? 0 : 1
  name                = var.uid
  resource_group_name = var.resource_group
  location            = var.region
  allocation_method   = "Static"
  sku                 = "Standard"
  tags                = local.tags
}

resource "azurerm_lb" "outside" {
  count               = var.internal_load_balancer ? 0 : 1
  name                = var.uid
  resource_group_name = var.resource_group
  location            = var.region
  sku                 = "Standard"
  tags                = local.tags
  frontend_ip_configuration {
    name                 = "outside"
    public_ip_address_id = azurerm_public_ip.outside[0].id
  }
}

resource "azurerm_lb" "inside" {
  name                = "${var.uid}-inside"
  resource_group_name = var.resource_group
  location            = var.region
  sku                 = "Standard"
  tags                = local.tags
  frontend_ip_configuration {
    name                          = "inside"
    subnet_id                     = local.subnet_id
    private_ip_address_allocation = "Dynamic"
  }
}

resource "azurerm_lb_backend_address_pool" "outside" {
  count           = var.internal_load_balancer ? 0 : 1
  name            = "control-planes"
  loadbalancer_id = azurerm_lb.outside[0].id
}

resource "azurerm_lb_backend_address_pool" "inside" {
  name            = "control-planes"
  loadbalancer_id = azurerm_lb.inside.id
}

resource "azurerm_lb_probe" "outside" {
  for_each            = local.outside_ports
  name                = each.key
  loadbalancer_id     = azurerm_lb.outside[0].id
  protocol            = "Tcp"
  port                = each.value
  interval_in_seconds = 5
  probe_threshold     = 2
}

resource "azurerm_lb_probe" "inside" {
  for_each            = local.inside_ports
  name                = each.key
  loadbalancer_id     = azurerm_lb.inside.id
  protocol            = "Tcp"
  port                = each.value
  interval_in_seconds = 5
  probe_threshold     = 2
}

resource "azurerm_lb_rule" "outside" {
  for_each                       = local.outside_ports
  name                           = each.key
  loadbalancer_id                = azurerm_lb.outside[0].id
  frontend_ip_configuration_name = "outside"
  backend_address_pool_ids       = [azurerm_lb_backend_address_pool.outside[0].id]
  probe_id                       = azurerm_lb_probe.outside[each.key].id
  protocol                       = "Tcp"
  frontend_port                  = each.value
  backend_port                   = each.value
  # the way out is the NAT gateway's
  disable_outbound_snat = true
}

resource "azurerm_lb_rule" "inside" {
  for_each                       = local.inside_ports
  name                           = each.key
  loadbalancer_id                = azurerm_lb.inside.id
  frontend_ip_configuration_name = "inside"
  backend_address_pool_ids       = [azurerm_lb_backend_address_pool.inside.id]
  probe_id                       = azurerm_lb_probe.inside[each.key].id
  protocol                       = "Tcp"
  frontend_port                  = each.value
  backend_port                   = each.value
}
