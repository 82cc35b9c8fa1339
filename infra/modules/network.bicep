// The private profile: a virtual network for the container app, and Cosmos DB's private endpoint in it.
param token string
param location string
param tags object

@description('False: there is no Cosmos DB')
param cosmos bool
param cosmosAccountId string

@description('The account\'s name, which its endpoint carries: an endpoint can\'t be turned to another account')
param cosmosAccountName string

var subnets = { apps: 'apps', endpoints: 'endpoints' }

resource network 'Microsoft.Network/virtualNetworks@2024-07-01' = {
  name: 'vnet-${token}'
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: ['10.0.0.0/16'] }
    subnets: [
      {
        name: subnets.apps
        properties: {
          addressPrefix: '10.0.0.0/23'
          delegations: [{ name: 'environments', properties: { serviceName: 'Microsoft.App/environments' } }]
        }
      }
      { name: subnets.endpoints, properties: { addressPrefix: '10.0.2.0/27' } }
    ]
  }
}

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = if (cosmos) {
  name: 'privatelink.documents.azure.com'
  location: 'global'
  tags: tags

  resource link 'virtualNetworkLinks' = {
    name: network.name
    location: 'global'
    tags: tags
    properties: { virtualNetwork: { id: network.id }, registrationEnabled: false }
  }
}

resource endpoint 'Microsoft.Network/privateEndpoints@2024-07-01' = if (cosmos) {
  name: 'pep-${cosmosAccountName}'
  location: location
  tags: tags
  properties: {
    subnet: { id: '${network.id}/subnets/${subnets.endpoints}' }
    privateLinkServiceConnections: [
      { name: 'cosmos', properties: { privateLinkServiceId: cosmosAccountId, groupIds: ['Sql'] } }
    ]
  }

  resource zones 'privateDnsZoneGroups' = {
    name: 'default'
    properties: { privateDnsZoneConfigs: [{ name: 'cosmos', properties: { privateDnsZoneId: zone.id } }] }
  }
}

output infrastructureSubnetId string = '${network.id}/subnets/${subnets.apps}'
