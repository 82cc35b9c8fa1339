// Everything in the resource group; the app registrations exist already. Deployable by itself, from the portal too.
import { authorityHost, faults, region } from 'checks.bicep'
import { list } from 'values.bicep'

@sealed()
@export()
@description('Settings of the service that are passed on as they are (docs/settings.md). An empty one is not set')
type ServiceSettings = {
  ACS_TOKEN_LIFETIME_MINUTES: string?
  ACS_TOKEN_REUSE_MINUTES: string?
  ACS_TOKEN_SCOPES: string?
  CONSOLE: string?
  DOCS_SCOPES: string?
  ENTRA_ALLOWED_CLIENTS: string?
  ENTRA_ALLOWED_TENANTS: string?
  ENTRA_ALLOW_GUESTS: string?
  ENTRA_AUDIENCES: string?
  ENTRA_REQUIRED_SCOPE: string?
  ENTRA_RESOLVE_SCOPE: string?
  GRAPH_ACCEPT_UNSEALED_UNTIL: string?
  GRAPH_EXTENSION_NAME: string?
  MAX_CONCURRENT_REQUESTS: string?
  OIDC_ACS_TOKEN_SCOPES: string?
  OIDC_AUDIENCE: string?
  OIDC_DISCOVERY_URL: string?
  OIDC_ISSUER: string?
  OIDC_REQUIRED_ROLE: string?
  OIDC_REQUIRED_SCOPE: string?
  OIDC_ROLES_CLAIM: string?
  OIDC_SUBJECT_CLAIM: string?
  OTEL_TRACES_SAMPLER: string?
  OTEL_TRACES_SAMPLER_ARG: string?
  RATE_LIMIT_REQUESTS_PER_MINUTE: string?
  REQUEST_DEADLINE_SECONDS: string?
  SHUTDOWN_DELAY_SECONDS: string?
  TEAMS_AUDIENCES: string?
  TEAMS_CLIENT_IDS: string?
  TRUSTED_PROXY_HOPS: string?
}

@minLength(5)
@maxLength(13)
@description('Goes into the names of all resources. Another one makes another ACS resource: mappings would be worthless')
param token string = toLower(uniqueString(resourceGroup().id))
param location string = resourceGroup().location
param tags object = {}

@description('True once the container app exists: what was set on it by hand is kept')
param apiExists bool = false

@description('An image in a public registry, or in the registry of this deployment; empty: the app is deployed later')
param containerImage string = ''

@description('Where mappings live')
@allowed(['cosmos', 'graph'])
param storageBackend string = 'cosmos'

@description('Where ACS keeps data at rest, such as Europe; it can\'t be changed later')
param acsDataLocation string = ''

@description('Resource id of an ACS resource to keep using; empty: one is made')
param existingAcsResourceId string = ''

@description('A Cosmos DB account to go on with, such as a restored one; empty: cosmos-<token>')
param cosmosAccountName string = ''

@description('serverless: pay per request, one region; autoscale: throughput that scales, several regions')
@allowed(['serverless', 'autoscale'])
param cosmosCapacity string = 'serverless'

@description('The region of Cosmos DB, where it must be another one than the rest\'s; empty: the same')
param cosmosLocation string = ''

@description('More regions to read from and to fail over to, separated by commas; for autoscale')
param cosmosReadRegions string = ''

@description('For autoscale: the most RU/s; a tenth of it is the least that is billed')
@minValue(1000)
param cosmosMaxThroughput int = 1000

@description('Spread Cosmos DB and the container app over availability zones; set it from the start')
param zoneRedundant bool = false

@description('Reach Cosmos DB through a private endpoint only')
param privateNetwork bool = false

@description('Take calls from the private network only; needs privateNetwork')
param internalIngress bool = false

@description('Take calls from Front Door only, by its private endpoint (front-door.bicep); not with privateNetwork')
param onlyFrontDoor bool = false

@description('With another issuer (OIDC_ISSUER): users of Microsoft Entra ID call as well')
param twoDoors bool = false

@description('Client id of the API registration; with another issuer (OIDC_ISSUER) only if twoDoors')
param apiClientId string = ''

@description('Client id of the browser client registration: for /docs, and its Teams tokens may be exchanged')
param browserClientId string = ''

@description('Browser origins that may call, separated by commas')
param corsAllowedOrigins string = ''

@minValue(0)
param minReplicas int = 2
param maxReplicas int = 10

@description('The most simultaneous requests of a replica before another one is added')
@minValue(1)
param concurrentRequests int = 50

param serviceSettings ServiceSettings = {}

@description('Who is told of alerts; empty: nobody')
param alertEmail string = ''

@secure()
@description('Where alerts are posted to, an https address; empty: nowhere')
param alertWebhook string = ''

@description('Object id of a group whose members may run operators\' commands; empty: none')
param operatorsGroupId string = ''

@description('When mappings are reconciled, in the form of cron, UTC, such as 0 3 * * 0; empty: never')
param reconcileSchedule string = ''

@description('True where a deleted key vault of this deployment still exists: it comes back with its secrets')
param recoverKeyVault bool = false

var entra = empty(serviceSettings.?OIDC_ISSUER) || twoDoors
var tellsSomebody = !empty(alertEmail) || !empty(alertWebhook)
var readRegions = list('COSMOS_READ_REGIONS', cosmosReadRegions)
var mappingsLocation = empty(cosmosLocation) ? location : cosmosLocation
var accountRegions = map(concat([mappingsLocation], readRegions), each => region(each))
var found = faults({
  containerImage: containerImage
  storageBackend: storageBackend
  acsDataLocation: acsDataLocation
  existingAcsResourceId: existingAcsResourceId
  cosmosCapacity: cosmosCapacity
  cosmosLocation: mappingsLocation
  cosmosReadRegions: readRegions
  zoneRedundant: zoneRedundant
  privateNetwork: privateNetwork
  internalIngress: internalIngress
  onlyFrontDoor: onlyFrontDoor
  minReplicas: minReplicas
  maxReplicas: maxReplicas
  oidcIssuer: serviceSettings.?OIDC_ISSUER ?? ''
  oidcAudience: serviceSettings.?OIDC_AUDIENCE ?? ''
  twoDoors: twoDoors
  resolveScope: serviceSettings.?ENTRA_RESOLVE_SCOPE ?? ''
})
var checkedToken = empty(found) ? toLower(token) : fail(join(found, ' '))

var createAcs = empty(existingAcsResourceId)
var acsIdParts = split(existingAcsResourceId, '/')
var acsSubscription = createAcs ? subscription().subscriptionId : acsIdParts[2]
var acsGroup = createAcs ? resourceGroup().name : acsIdParts[4]
var acsName = createAcs ? 'acs-${checkedToken}' : last(acsIdParts)!
var cosmosName = empty(cosmosAccountName) ? 'cosmos-${checkedToken}' : cosmosAccountName
var registryName = 'cr${checkedToken}'
// A registry is made unless the image is in another one.
var createRegistry = empty(containerImage) || startsWith(containerImage, '${registryName}.')
var name = 'ca-api-${checkedToken}'
var identityName = 'id-api-${checkedToken}'

module identity 'modules/identity.bicep' = {
  name: 'identity'
  params: { name: identityName, location: location, tags: tags }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  params: { token: checkedToken, location: location, tags: tags }
}

module workbook 'modules/workbook.bicep' = {
  name: 'workbook'
  params: { token: checkedToken, location: location, tags: tags, insightsId: monitoring.outputs.insightsId }
}

module operators 'modules/operators.bicep' = if (tellsSomebody) {
  name: 'operators'
  params: { name: 'ag-${checkedToken}', tags: tags, email: alertEmail, webhook: alertWebhook }
}

module queries 'modules/queries.bicep' = {
  name: 'query-alerts'
  params: {
    token: checkedToken
    location: location
    tags: tags
    insightsId: monitoring.outputs.insightsId
    actionGroupId: actionGroupId
  }
}

// The name is a function of subscription and environment: a later deployment finds the same ACS resource again.
module communication 'modules/communication.bicep' = {
  name: 'communication'
  scope: resourceGroup(acsSubscription, acsGroup)
  params: {
    name: acsName
    create: createAcs
    dataLocation: acsDataLocation
    tags: tags
    identityName: identityName
    principalId: identity.outputs.principalId
    operatorsGroupId: operatorsGroupId
  }
}

module cosmos 'modules/cosmos.bicep' = if (storageBackend == 'cosmos') {
  name: 'cosmos'
  params: {
    name: cosmosName
    location: region(mappingsLocation)
    tags: tags
    capacity: cosmosCapacity
    readRegions: map(readRegions, each => region(each))
    zoneRedundant: zoneRedundant
    publicNetworkAccess: privateNetwork ? 'Disabled' : 'Enabled'
    identityName: identityName
    principalId: identity.outputs.principalId
    operatorsGroupId: operatorsGroupId
    workspaceId: monitoring.outputs.workspaceId
    maxThroughput: cosmosMaxThroughput
  }
}

module network 'modules/network.bicep' = if (privateNetwork) {
  name: 'network'
  params: {
    token: checkedToken
    location: location
    tags: tags
    cosmos: storageBackend == 'cosmos'
    cosmosAccountId: storageBackend == 'cosmos' ? cosmos!.outputs.id : ''
    cosmosAccountName: cosmosName
  }
}

module registry 'modules/registry.bicep' = if (createRegistry) {
  name: 'registry'
  params: {
    name: registryName
    location: location
    tags: tags
    identityName: identityName
    principalId: identity.outputs.principalId
  }
}

module vault 'modules/vault.bicep' = {
  name: 'vault'
  params: {
    name: 'kv-${checkedToken}'
    location: location
    tags: tags
    recover: recoverKeyVault
    identityName: identityName
    principalId: identity.outputs.principalId
    sealKeys: storageBackend == 'graph'
  }
}

module containerEnvironment 'modules/environment.bicep' = {
  name: 'environment'
  params: {
    name: 'cae-${checkedToken}'
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    infrastructureSubnetId: privateNetwork ? network!.outputs.infrastructureSubnetId : ''
    internal: internalIngress
    zoneRedundant: zoneRedundant
    onlyFrontDoor: onlyFrontDoor
  }
}

var actionGroupId = tellsSomebody ? operators!.outputs.id : ''
var configuration = {
  name: name
  location: location
  tags: tags
  environmentId: containerEnvironment.outputs.id
  onlyFrontDoor: onlyFrontDoor
  public: !internalIngress && !onlyFrontDoor
  identityId: identity.outputs.id
  registryServer: createRegistry ? registry!.outputs.loginServer : ''
  insightsName: monitoring.outputs.insightsName
  actionGroupId: actionGroupId
  token: checkedToken
  minReplicas: minReplicas
  maxReplicas: maxReplicas
  concurrentRequests: concurrentRequests
  // An empty value means that the setting is not set.
  variables: union(
    {
      ACS_ENDPOINT: communication.outputs.endpoint
      APPLICATIONINSIGHTS_SDKSTATS_DISABLED: 'true'
      CORS_ALLOWED_ORIGINS: corsAllowedOrigins
      COSMOS_CONTAINER: storageBackend == 'cosmos' ? cosmos!.outputs.containerName : ''
      COSMOS_DATABASE: storageBackend == 'cosmos' ? cosmos!.outputs.databaseName : ''
      // Where the account has several regions, reads go to the app's own one.
      COSMOS_PREFERRED_REGIONS: storageBackend == 'cosmos' && !empty(readRegions) && contains(
          accountRegions,
          region(location)
        )
        ? region(location)
        : ''
      COSMOS_ENDPOINT: storageBackend == 'cosmos' ? cosmos!.outputs.endpoint : ''
      DOCS_CLIENT_ID: browserClientId
      // Callers come from Microsoft Entra ID, from another issuer, or both. The managed identity is always the service's.
      ENTRA_AUTHORITY_HOST: entra ? authorityHost() : ''
      ENTRA_CLIENT_ID: !entra
        ? ''
        : !empty(apiClientId) ? apiClientId : fail('Give apiClientId, the API\'s registration.')
      ENTRA_MANAGED_IDENTITY_CLIENT_ID: identity.outputs.clientId
      ENTRA_TENANT_ID: entra ? tenant().tenantId : ''
      // Not parentbased_: a client's traceparent would decide what is kept and paid for.
      OTEL_TRACES_SAMPLER: 'traceidratio'
      OTEL_TRACES_SAMPLER_ARG: '0.05'
      STORAGE_BACKEND: storageBackend
      TEAMS_CLIENT_IDS: entra ? browserClientId : ''
      TRUSTED_PROXY_HOPS: '1' // the ingress
    },
    toObject(filter(items(serviceSettings), each => !empty(each.?value)), each => each.key, each => each.?value ?? '')
  )
  secrets: union(
    { LOG_HASH_KEY: vault.outputs.logHashKeyUri },
    storageBackend == 'graph' ? { GRAPH_SEAL_KEYS: vault.outputs.graphSealKeysUri } : {}
  )
  jobs: {
    commands: 'caj-commands-${checkedToken}'
    reconcile: 'caj-reconcile-${checkedToken}'
    reconcileSchedule: reconcileSchedule
    operatorsGroupId: operatorsGroupId
  }
}

module api 'api.bicep' = if (!empty(containerImage)) {
  name: 'api'
  params: {
    #disable-next-line what-if-short-circuiting // holds addresses that only Azure knows; a preview shows all but this
    configuration: configuration
    image: containerImage
    exists: apiExists
  }
}

module cosmosAlerts 'modules/alerts.bicep' = if (storageBackend == 'cosmos') {
  name: 'cosmos-alerts'
  params: {
    subject: 'cosmos'
    token: checkedToken
    tags: tags
    scopeId: cosmos!.outputs.id
    actionGroupId: actionGroupId
    alerts: [
      {
        name: 'throttled'
        severity: 2
        description: 'Cosmos DB refused more than 10 requests in 5 minutes for want of throughput (429)'
        metric: 'TotalRequests'
        aggregation: 'Count'
        threshold: 10
        dimensions: [{ name: 'StatusCode', operator: 'Include', values: ['429'] }]
      }
    ]
  }
}

output name string = name
output uri string = 'https://${name}.${containerEnvironment.outputs.defaultDomain}'
output environmentId string = containerEnvironment.outputs.id
output acsResourceId string = resourceId(
  acsSubscription,
  acsGroup,
  'Microsoft.Communication/communicationServices',
  acsName
)
output acsEndpoint string = communication.outputs.endpoint
output registryServer string = createRegistry ? registry!.outputs.loginServer : ''
output managedIdentityPrincipalId string = identity.outputs.principalId
output configuration object = configuration
