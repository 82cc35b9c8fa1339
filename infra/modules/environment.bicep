// Where container apps and jobs run, and where their logs go.
param name string
param location string
param tags object
param workspaceId string

@description('Empty: no network of its own')
param infrastructureSubnetId string

@description('Take calls from the virtual network only; needs the subnet')
param internal bool

@description('Spread over availability zones; needs the subnet')
param zoneRedundant bool

@description('Take calls from Front Door only, by its private endpoint; not in a virtual network of its own')
param onlyFrontDoor bool

var privateNetwork = !empty(infrastructureSubnetId)

resource environment 'Microsoft.App/managedEnvironments@2025-07-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    appLogsConfiguration: { destination: 'azure-monitor' }
    workloadProfiles: [{ name: 'Consumption', workloadProfileType: 'Consumption' }]
    zoneRedundant: privateNetwork && zoneRedundant
    publicNetworkAccess: onlyFrontDoor ? 'Disabled' : 'Enabled'
    vnetConfiguration: privateNetwork ? { infrastructureSubnetId: infrastructureSubnetId, internal: internal } : null
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: environment
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'ContainerAppConsoleLogs', enabled: true }
      { category: 'ContainerAppSystemLogs', enabled: true }
    ]
  }
}

output id string = environment.id
output defaultDomain string = environment.properties.defaultDomain
