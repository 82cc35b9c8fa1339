// Everything in the resource group; the app registrations exist already. Deployable by itself, from the portal too.

@description('Goes into the names of all resources')
param token string = toLower(uniqueString(resourceGroup().id))
param location string = resourceGroup().location
param tags object = {}

@description('True once the container app exists: its image is kept')
param apiExists bool = false

@description('An image in a public registry; empty: a registry is made, and azd builds the image into it')
param containerImage string = ''

@description('Where mappings live')
@allowed(['cosmos', 'graph'])
param storageBackend string = 'cosmos'

@description('Where ACS keeps data at rest; it cannot be changed later')
param acsDataLocation string = 'Europe'

@description('Resource id of an ACS resource to keep using; empty: one is made')
param existingAcsResourceId string = ''

@description('A Cosmos DB account to go on with, such as a restored one; empty: cosmos-<token>')
param cosmosAccountName string = ''

@allowed(['serverless', 'autoscale'])
param cosmosCapacity string = 'serverless'

@description('More regions to read from and to fail over to, separated by commas; for autoscale')
param cosmosReadRegions string = ''
param zoneRedundant bool = false

@description('Reach Cosmos DB through a private endpoint alone')
param privateNetwork bool = false

@description('Take calls from the private network alone')
param internalIngress bool = false

@description('Client id of the API registration')
param apiClientId string

@description('Client id of the browser client registration: for /docs, and its Teams tokens may be exchanged')
param browserClientId string = ''

@description('Browser origins that may call, separated by commas')
param corsAllowedOrigins string = ''
param minReplicas int = 2
param maxReplicas int = 10

@description('Who is told of alerts; empty: nobody')
param alertEmail string = ''

var createAcs = empty(existingAcsResourceId)
var acsIdParts = split(existingAcsResourceId, '/')
var acsSubscription = createAcs ? subscription().subscriptionId : acsIdParts[2]
var acsGroup = createAcs ? resourceGroup().name : acsIdParts[4]

module identity 'modules/identity.bicep' = {
  name: 'identity'
  params: { name: 'id-api-${token}', location: location, tags: tags }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  params: { token: token, location: location, tags: tags }
}

module network 'modules/network.bicep' = if (privateNetwork) {
  name: 'network'
  params: {
    token: token
    location: location
    tags: tags
    cosmosAccountId: storageBackend == 'cosmos' ? cosmos!.outputs.id : ''
  }
}

// The name is a function of subscription, environment and region: a later deployment finds the same ACS resource again.
module communication 'modules/communication.bicep' = {
  name: 'communication'
  scope: resourceGroup(acsSubscription, acsGroup)
  params: {
    name: createAcs ? 'acs-${token}' : last(acsIdParts)!
    create: createAcs
    dataLocation: acsDataLocation
    tags: tags
    principalId: identity.outputs.principalId
  }
}

module cosmos 'modules/cosmos.bicep' = if (storageBackend == 'cosmos') {
  name: 'cosmos'
  params: {
    name: empty(cosmosAccountName) ? 'cosmos-${token}' : cosmosAccountName
    location: location
    tags: tags
    capacity: cosmosCapacity
    readRegions: empty(cosmosReadRegions) ? [] : split(cosmosReadRegions, ',')
    zoneRedundant: zoneRedundant
    publicNetworkAccess: privateNetwork ? 'Disabled' : 'Enabled'
    principalId: identity.outputs.principalId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module registry 'modules/registry.bicep' = if (empty(containerImage)) {
  name: 'registry'
  params: { name: 'cr${token}', location: location, tags: tags, pullPrincipalId: identity.outputs.principalId }
}

module api 'modules/api.bicep' = {
  name: 'api'
  params: {
    name: 'ca-api-${token}'
    environmentName: 'cae-${token}'
    location: location
    tags: tags
    serviceName: 'api'
    exists: apiExists
    image: containerImage
    registryServer: empty(containerImage) ? registry!.outputs.loginServer : ''
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    workspaceId: monitoring.outputs.workspaceId
    insightsName: monitoring.outputs.insightsName
    infrastructureSubnetId: privateNetwork ? network!.outputs.infrastructureSubnetId : ''
    internalIngress: internalIngress
    zoneRedundant: zoneRedundant
    minReplicas: minReplicas
    maxReplicas: maxReplicas
    apiClientId: apiClientId
    browserClientId: browserClientId
    corsAllowedOrigins: corsAllowedOrigins
    acsEndpoint: communication.outputs.endpoint
    storageBackend: storageBackend
    cosmosEndpoint: storageBackend == 'cosmos' ? cosmos!.outputs.endpoint : ''
    cosmosDatabase: storageBackend == 'cosmos' ? cosmos!.outputs.databaseName : ''
    cosmosContainer: storageBackend == 'cosmos' ? cosmos!.outputs.containerName : ''
  }
}

module alerts 'modules/alerts.bicep' = {
  name: 'alerts'
  params: {
    token: token
    tags: tags
    email: alertEmail
    apiId: api.outputs.id
    cosmosAccountId: storageBackend == 'cosmos' ? cosmos!.outputs.id : ''
  }
}

output name string = api.outputs.name
output uri string = api.outputs.uri
output acsEndpoint string = communication.outputs.endpoint
output registryServer string = empty(containerImage) ? registry!.outputs.loginServer : ''
output managedIdentityPrincipalId string = identity.outputs.principalId
