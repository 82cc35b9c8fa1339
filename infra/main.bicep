// The whole deployment in one go: a resource group, the app registrations (switchable), the service, a budget.
//   azd up        or: az deployment sub create --template-file infra/main.bicep ...   (docs/deploy.md)
// Switches and numbers are text, which values.bicep reads: a value that can't be read stops the deployment.
targetScope = 'subscription'

import { authorityHost, faults } from 'checks.bicep'
import { flag, list, number, pairs } from 'values.bicep'
import { ServiceSettings } from 'resources.bicep'

@minLength(1)
@maxLength(64)
@description('Names the deployment; every resource carries it as a tag')
param environmentName string

@minLength(1)
@description('The primary region')
@metadata({ azd: { type: 'location' } })
param location string

@description('true once the container app exists: what was set on it by hand is kept (azd sets SERVICE_API_RESOURCE_EXISTS)')
param apiExists string = 'false'

@description('An image in a public registry, or in the registry of this deployment; empty: azd builds and deploys it later')
param containerImage string = ''

@description('Where mappings live')
@allowed(['cosmos', 'graph'])
param storageBackend string = 'cosmos'

@description('Where ACS keeps data at rest, such as Europe or United States. It has no default: it can\'t be changed later')
param acsDataLocation string = ''

@description('Resource id of an ACS resource to keep using; empty: one is made. Mappings hold for one ACS resource only')
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

@description('For autoscale: the most RU/s, at least 1000; a tenth of it is the least that is billed')
param cosmosMaxThroughput string = '1000'

@description('Spread Cosmos DB and the container app over availability zones; set it from the start; needs privateNetwork')
param zoneRedundant string = 'false'

@description('Reach Cosmos DB through a private endpoint only; set it from the start')
param privateNetwork string = 'false'

@description('Take calls from the private network only; needs privateNetwork')
param internalIngress string = 'false'

@description('Take calls from Front Door only, by its private endpoint (front-door.bicep); not with privateNetwork')
param onlyFrontDoor string = 'false'

@description('Make and keep the app registrations; needs Application.ReadWrite.All')
param createAppRegistrations string = 'true'

@description('With another issuer (OIDC_ISSUER): users of Microsoft Entra ID call as well')
param twoDoors string = 'false'

@description('Client id of the API registration, if it is not made here')
param apiClientId string = ''

@description('Client id of the browser client registration, if it is not made here')
param browserClientId string = ''

@description('Where the browser client returns to after sign-in, separated by commas')
param browserRedirectUris string = 'http://localhost:3000/'

@description('Browser origins that may call, separated by commas')
param corsAllowedOrigins string = ''

param minReplicas string = '2'
param maxReplicas string = '10'

@description('The most simultaneous requests of a replica before another one is added')
param concurrentRequests string = '50'

param serviceSettings ServiceSettings = {}

@description('Who is told of alerts and of the budget; empty: nobody, and there is no budget')
param alertEmail string = ''

@secure()
@description('Where alerts are posted to, an https address; empty: nowhere')
param alertWebhook string = ''

@description('Budget per month in the currency of the subscription; 0: none')
param monthlyBudget string = '0'

@description('With a budget: the first day of the month in which it was made, as 2026-11-01 (azd\'s hook finds it out)')
param budgetStartDate string = ''

@description('Object id of a group whose members may run operators\' commands; empty: none')
param operatorsGroupId string = ''

@description('When mappings are reconciled, in the form of cron, UTC, such as 0 3 * * 0; empty: never')
param reconcileSchedule string = ''

@description('More tags for every resource: NAME=VALUE, separated by commas')
param resourceTags string = ''

@description('true where a deleted key vault of this deployment still exists: it comes back with its secrets (azd\'s hook)')
param recoverKeyVault string = 'false'

var budgeted = number('MONTHLY_BUDGET', monthlyBudget) > 0
var entra = empty(serviceSettings.?OIDC_ISSUER) || flag('TWO_DOORS', twoDoors)
var registrations = flag('CREATE_APP_REGISTRATIONS', createAppRegistrations) && entra
var throughput = number('COSMOS_MAX_THROUGHPUT', cosmosMaxThroughput)
var found = concat(
  faults({
    containerImage: containerImage
    storageBackend: storageBackend
    acsDataLocation: acsDataLocation
    existingAcsResourceId: existingAcsResourceId
    cosmosCapacity: cosmosCapacity
    cosmosLocation: empty(cosmosLocation) ? location : cosmosLocation
    cosmosReadRegions: list('COSMOS_READ_REGIONS', cosmosReadRegions)
    zoneRedundant: flag('ZONE_REDUNDANT', zoneRedundant)
    privateNetwork: flag('PRIVATE_NETWORK', privateNetwork)
    internalIngress: flag('INTERNAL_INGRESS', internalIngress)
    onlyFrontDoor: flag('ONLY_FRONT_DOOR', onlyFrontDoor)
    minReplicas: number('MIN_REPLICAS', minReplicas)
    maxReplicas: number('MAX_REPLICAS', maxReplicas)
    oidcIssuer: serviceSettings.?OIDC_ISSUER ?? ''
    oidcAudience: serviceSettings.?OIDC_AUDIENCE ?? ''
    twoDoors: flag('TWO_DOORS', twoDoors)
    resolveScope: serviceSettings.?ENTRA_RESOLVE_SCOPE ?? ''
  }),
  !registrations && entra && empty(apiClientId)
    ? ['Set API_CLIENT_ID, the client id of the API\'s app registration, or CREATE_APP_REGISTRATIONS=true.']
    : [],
  throughput >= 1000 && throughput % 1000 == 0 ? [] : ['COSMOS_MAX_THROUGHPUT must be a multiple of 1000.'],
  number('CONCURRENT_REQUESTS', concurrentRequests) > 0 ? [] : ['CONCURRENT_REQUESTS must be at least 1.'],
  contains(list('CORS_ALLOWED_ORIGINS', corsAllowedOrigins), '*')
    ? ['CORS_ALLOWED_ORIGINS takes exact origins, such as https://app.example.com, not *.']
    : [],
  contains(list('BROWSER_REDIRECT_URIS', browserRedirectUris), '*')
    ? ['BROWSER_REDIRECT_URIS takes exact addresses, such as https://app.example.com/, not *.']
    : [],
  budgeted && empty(alertEmail) ? ['MONTHLY_BUDGET needs ALERT_EMAIL: a budget stops nothing, it tells somebody.'] : [],
  budgeted && empty(budgetStartDate)
    ? [
        'MONTHLY_BUDGET needs BUDGET_START_DATE: the start date of the budget that exists, or the first day of this month.'
      ]
    : []
)

// Names follow what can't change: not the region, and not how the name or a region is written. Otherwise a second ACS
// resource would be made, and every user orphaned.
var token = empty(found) ? toLower(uniqueString(subscription().id, toLower(environmentName))) : fail(join(found, ' '))
var tags = union(pairs('RESOURCE_TAGS', resourceTags), { 'azd-env-name': environmentName })
var prefix = 'acs-auth-${token}'

// The group remembers what must not change later; the hook preprovision compares.
resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: union(tags, {
    'acs-auth-token': token
    'acs-auth-authority-host': authorityHost()
    'acs-auth-storage-backend': storageBackend
    'acs-auth-acs-data-location': empty(existingAcsResourceId) ? acsDataLocation : ''
    'acs-auth-existing-acs-resource-id': existingAcsResourceId
    'acs-auth-cosmos-account-name': cosmosAccountName
    'acs-auth-cosmos-capacity': cosmosCapacity
    'acs-auth-cosmos-location': cosmosLocation
    'acs-auth-private-network': toLower(string(flag('PRIVATE_NETWORK', privateNetwork)))
    'acs-auth-zone-redundant': toLower(string(flag('ZONE_REDUNDANT', zoneRedundant)))
  })
}

// The registrations come in two steps: the service needs their client ids, and they need its identity and address.
module applications 'entra/applications.bicep' = if (registrations) {
  scope: group
  name: 'applications'
  params: { uniqueNamePrefix: prefix, resolveScope: serviceSettings.?ENTRA_RESOLVE_SCOPE ?? '' }
}

module resources 'resources.bicep' = {
  scope: group
  name: 'resources'
  params: {
    token: token
    location: location
    tags: tags
    apiExists: flag('SERVICE_API_RESOURCE_EXISTS', apiExists)
    containerImage: containerImage
    storageBackend: storageBackend
    acsDataLocation: acsDataLocation
    existingAcsResourceId: existingAcsResourceId
    cosmosAccountName: cosmosAccountName
    cosmosCapacity: cosmosCapacity
    cosmosLocation: cosmosLocation
    cosmosReadRegions: cosmosReadRegions
    cosmosMaxThroughput: throughput
    zoneRedundant: flag('ZONE_REDUNDANT', zoneRedundant)
    privateNetwork: flag('PRIVATE_NETWORK', privateNetwork)
    internalIngress: flag('INTERNAL_INGRESS', internalIngress)
    onlyFrontDoor: flag('ONLY_FRONT_DOOR', onlyFrontDoor)
    twoDoors: flag('TWO_DOORS', twoDoors)
    #disable-next-line what-if-short-circuiting // Entra ID draws the id; it is in no name
    apiClientId: registrations ? applications!.outputs.apiClientId : apiClientId
    #disable-next-line what-if-short-circuiting // as above
    browserClientId: registrations ? applications!.outputs.browserClientId : browserClientId
    corsAllowedOrigins: join(list('CORS_ALLOWED_ORIGINS', corsAllowedOrigins), ',')
    minReplicas: number('MIN_REPLICAS', minReplicas)
    maxReplicas: number('MAX_REPLICAS', maxReplicas)
    concurrentRequests: number('CONCURRENT_REQUESTS', concurrentRequests)
    serviceSettings: serviceSettings
    alertEmail: alertEmail
    alertWebhook: alertWebhook
    operatorsGroupId: operatorsGroupId
    reconcileSchedule: reconcileSchedule
    recoverKeyVault: flag('RECOVER_KEY_VAULT', recoverKeyVault)
  }
}

// The console signs in at `/`. These are the words that the service takes for true.
var consoleIsOn = contains(['true', '1', 'on', 't', 'y', 'yes'], toLower(trim(serviceSettings.?CONSOLE ?? '')))

module trust 'entra/trust.bicep' = if (registrations) {
  scope: group
  name: 'trust'
  params: {
    uniqueNamePrefix: prefix
    apiClientId: applications!.outputs.apiClientId
    browserClientId: applications!.outputs.browserClientId
    scopes: applications!.outputs.scopes
    managedIdentityPrincipalId: resources.outputs.managedIdentityPrincipalId
    redirectUris: concat(
      list('BROWSER_REDIRECT_URIS', browserRedirectUris),
      ['${resources.outputs.uri}/docs/oauth2-redirect.html'],
      consoleIsOn ? ['${resources.outputs.uri}/'] : []
    )
    graphPermissions: storageBackend == 'graph'
  }
}

module budget 'modules/budget.bicep' = if (budgeted) {
  scope: group
  name: 'budget'
  params: {
    name: 'budget-${token}'
    amount: number('MONTHLY_BUDGET', monthlyBudget)
    email: alertEmail
    startDate: budgetStartDate
  }
}

// No output is called like an input: azd would take last time's output for this time's input.
output AZURE_TENANT_ID string = tenant().tenantId
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_CONTAINER_REGISTRY_ENDPOINT string = resources.outputs.registryServer
output SERVICE_API_NAME string = resources.outputs.name
output SERVICE_API_URI string = resources.outputs.uri
output SERVICE_API_CONFIGURATION object = resources.outputs.configuration
output DEPLOYED_ENVIRONMENT_ID string = resources.outputs.environmentId
output DEPLOYED_ACS_RESOURCE_ID string = resources.outputs.acsResourceId
output DEPLOYED_ACS_ENDPOINT string = resources.outputs.acsEndpoint
output DEPLOYED_API_CLIENT_ID string = registrations ? applications!.outputs.apiClientId : apiClientId
output DEPLOYED_BROWSER_CLIENT_ID string = registrations ? applications!.outputs.browserClientId : browserClientId
output DEPLOYED_IDENTITY_PRINCIPAL_ID string = resources.outputs.managedIdentityPrincipalId
