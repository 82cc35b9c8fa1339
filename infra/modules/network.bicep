// The private profile: a virtual network for the container app, and Cosmos DB's private endpoint in it.
param token string
param location string
param tags object

@description('Empty: there is no Cosmos DB')
param cosmosAccountId string

module virtualNetwork 'br/public:avm/res/network/virtual-network:0.7.1' = {
  name: 'virtual-network'
  params: {
    name: 'vnet-${token}'
    location: location
    tags: tags
    enableTelemetry: false
    addressPrefixes: ['10.0.0.0/16']
    subnets: [
      { name: 'apps', addressPrefix: '10.0.0.0/23', delegation: 'Microsoft.App/environments' }
      { name: 'endpoints', addressPrefix: '10.0.2.0/27' }
    ]
  }
}

module cosmosZone 'br/public:avm/res/network/private-dns-zone:0.8.0' = if (!empty(cosmosAccountId)) {
  name: 'cosmos-zone'
  params: {
    name: 'privatelink.documents.azure.com'
    tags: tags
    enableTelemetry: false
    virtualNetworkLinks: [{ virtualNetworkResourceId: virtualNetwork.outputs.resourceId }]
  }
}

module cosmosEndpoint 'br/public:avm/res/network/private-endpoint:0.11.1' = if (!empty(cosmosAccountId)) {
  name: 'cosmos-endpoint'
  params: {
    name: 'pep-cosmos-${token}'
    location: location
    tags: tags
    enableTelemetry: false
    subnetResourceId: virtualNetwork.outputs.subnetResourceIds[1]
    privateLinkServiceConnections: [
      { name: 'cosmos', properties: { privateLinkServiceId: cosmosAccountId, groupIds: ['Sql'] } }
    ]
    privateDnsZoneGroup: {
      privateDnsZoneGroupConfigs: [{ privateDnsZoneResourceId: cosmosZone!.outputs.resourceId }]
    }
  }
}

output infrastructureSubnetId string = virtualNetwork.outputs.subnetResourceIds[0]
