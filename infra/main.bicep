// The whole deployment in one go: a resource group, the app registrations (switchable), the service, a budget.
//   azd up        or: az deployment sub create --template-file infra/main.bicep ...   (docs/deploy.md)
targetScope = 'subscription'

@minLength(1)
@maxLength(64)
@description('Names the deployment; every resource carries it as a tag')
param environmentName string

@minLength(1)
@description('The primary region')
@metadata({ azd: { type: 'location' } })
param location string

@description('True once the container app exists: its image is kept (azd sets SERVICE_API_RESOURCE_EXISTS)')
param apiExists bool = false

@description('An image in a public registry; empty: the one azd builds into a registry of the deployment')
param containerImage string = ''

@description('Where mappings live')
@allowed(['cosmos', 'graph'])
param storageBackend string = 'cosmos'

@description('Where ACS keeps data at rest; it cannot be changed later')
param acsDataLocation string = 'Europe'

@description('Resource id of an ACS resource to keep using; empty: one is made. Mappings hold for one ACS resource alone')
param existingAcsResourceId string = ''

@description('A Cosmos DB account to go on with, such as a restored one; empty: cosmos-<token>')
param cosmosAccountName string = ''

@description('serverless: pay per request, one region; autoscale: throughput that scales, several regions')
@allowed(['serverless', 'autoscale'])
param cosmosCapacity string = 'serverless'

@description('More regions to read from and to fail over to, separated by commas; for autoscale')
param cosmosReadRegions string = ''

@description('Spread Cosmos DB (and, in a private network, the container app) over availability zones; set it from the start')
param zoneRedundant bool = false

@description('Reach Cosmos DB through a private endpoint alone')
param privateNetwork bool = false

@description('Take calls from the private network alone')
param internalIngress bool = false

@description('Make and keep the app registrations; needs Application.ReadWrite.All')
param createAppRegistrations bool = true

@description('Client id of the API registration, if it is not made here')
param apiClientId string = ''

@description('Client id of the browser client registration, if it is not made here')
param browserClientId string = ''

@description('Where the browser client returns to after sign-in, separated by commas')
param browserRedirectUris string = 'http://localhost:3000/'

@description('Browser origins that may call, separated by commas')
param corsAllowedOrigins string = ''

@minValue(0)
param minReplicas int = 2

@minValue(1)
param maxReplicas int = 10

@description('Who is told of alerts and of the budget; empty: nobody, and there is no budget')
param alertEmail string = ''

@description('Budget per month in the currency of the subscription; 0: none')
@minValue(0)
param monthlyBudget int = 0

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = { 'azd-env-name': environmentName }

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

// The registrations come in two steps: the service needs their client ids, and they need its identity and address.
module applications 'entra/applications.bicep' = if (createAppRegistrations) {
  scope: group
  name: 'applications'
  params: { uniqueNamePrefix: 'acs-auth-${token}' }
}

module resources 'resources.bicep' = {
  scope: group
  name: 'resources'
  params: {
    token: token
    location: location
    tags: tags
    apiExists: apiExists
    containerImage: containerImage
    storageBackend: storageBackend
    acsDataLocation: acsDataLocation
    existingAcsResourceId: existingAcsResourceId
    cosmosAccountName: cosmosAccountName
    cosmosCapacity: cosmosCapacity
    cosmosReadRegions: cosmosReadRegions
    zoneRedundant: zoneRedundant
    privateNetwork: privateNetwork
    internalIngress: internalIngress
    apiClientId: createAppRegistrations ? applications!.outputs.apiClientId : apiClientId
    browserClientId: createAppRegistrations ? applications!.outputs.browserClientId : browserClientId
    corsAllowedOrigins: corsAllowedOrigins
    minReplicas: minReplicas
    maxReplicas: maxReplicas
    alertEmail: alertEmail
  }
}

module trust 'entra/trust.bicep' = if (createAppRegistrations) {
  scope: group
  name: 'trust'
  params: {
    uniqueNamePrefix: 'acs-auth-${token}'
    apiClientId: applications!.outputs.apiClientId
    browserClientId: applications!.outputs.browserClientId
    scopes: applications!.outputs.scopes
    managedIdentityPrincipalId: resources.outputs.managedIdentityPrincipalId
    serviceUri: resources.outputs.uri
    browserRedirectUris: browserRedirectUris
    graphPermissions: storageBackend == 'graph'
  }
}

module budget 'modules/budget.bicep' = if (!empty(alertEmail) && monthlyBudget > 0) {
  scope: group
  name: 'budget'
  params: { name: 'budget-${token}', amount: monthlyBudget, email: alertEmail }
}

output AZURE_LOCATION string = location
output AZURE_TENANT_ID string = tenant().tenantId
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_CONTAINER_REGISTRY_ENDPOINT string = resources.outputs.registryServer
output SERVICE_API_NAME string = resources.outputs.name
output SERVICE_API_URI string = resources.outputs.uri
// For pipelines, which start with an empty environment: `azd env refresh` takes it over.
output SERVICE_API_RESOURCE_EXISTS bool = true
output ACS_ENDPOINT string = resources.outputs.acsEndpoint
output API_CLIENT_ID string = createAppRegistrations ? applications!.outputs.apiClientId : apiClientId
output BROWSER_CLIENT_ID string = createAppRegistrations ? applications!.outputs.browserClientId : browserClientId
