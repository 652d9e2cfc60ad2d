# A network of its own, unless a subnet is named. Nodes have no public addresses; a NAT gateway is
# their way out.

resource "azurerm_virtual_network" "this" {
  count               = local.make_network ? 1 : 0
  name                = var.uid
  resource_group_name = var.resource_group
  location            = var.region
  address_space       = [var.node_cidr]
  tags                = local.tags
}

resource "azurerm_subnet" "nodes" {
  count                           = local.make_network ? 1 : 0
  name                            = "${var.uid}-nodes"
  resource_group_name             = var.resource_group
  virtual_network_name            = azurerm_virtual_network.this[0].name
  address_prefixes                = [var.node_cidr]
  default_outbound_access_enabled = false
}

resource "azurerm_public_ip" "nat" {
  count               = local.make_network ? 1 : 0
  name                = "${var.uid}-nat"
  resource_group_name = var.resource_group
  location            = var.region
  allocation_method   = "Static"
  sku                 = "Standard"
  tags                = local.tags
}

resource "azurerm_nat_gateway" "this" {
  count               = local.make_network ? 1 : 0
  name                = var.uid
  resource_group_name = var.resource_group
  location            = var.region
  sku_name            = "Standard"
  tags                = local.tags
}

resource "azurerm_nat_gateway_public_ip_association" "this" {
  count                = local.make_network ? 1 : 0
  nat_gateway_id       = azurerm_nat_gateway.this[0].id
  public_ip_address_id = azurerm_public_ip.nat[0].id
}

resource "azurerm_subnet_nat_gateway_association" "this" {
  count          = local.make_network ? 1 : 0
  subnet_id      = azurerm_subnet.nodes[0].id
  nat_gateway_id = azurerm_nat_gateway.this[0].id
}
