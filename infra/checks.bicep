// What is refused before anything is deployed: choices that contradict each other, or that Azure would take in silence.

@export()
@description('The choices that are checked, by the names of resources.bicep')
type Choices = {
  containerImage: string
  storageBackend: string
  acsDataLocation: string
  existingAcsResourceId: string
  cosmosCapacity: string
  cosmosLocation: string
  cosmosReadRegions: string[]
  zoneRedundant: bool
  privateNetwork: bool
  internalIngress: bool
  onlyFrontDoor: bool
  minReplicas: int
  maxReplicas: int
  oidcIssuer: string
  oidcAudience: string
  twoDoors: bool
  resolveScope: string
}

@export()
@description('One sentence for each fault; none is good')
func faults(given Choices) string[] =>
  filter(
    [
      empty(given.existingAcsResourceId) && empty(given.acsDataLocation)
        ? 'Set ACS_DATA_LOCATION, where ACS keeps data at rest, such as Europe or United States: it can\'t be changed later.'
        : ''
      empty(given.existingAcsResourceId) || isAcsResourceId(split(toLower(given.existingAcsResourceId), '/'))
        ? ''
        : 'EXISTING_ACS_RESOURCE_ID must be /subscriptions/ID/resourceGroups/NAME/providers/Microsoft.Communication/communicationServices/NAME.'
      given.internalIngress && !given.privateNetwork
        ? 'INTERNAL_INGRESS=true needs PRIVATE_NETWORK=true: without a network of its own the service would be on the internet.'
        : ''
      given.onlyFrontDoor && given.privateNetwork
        ? 'ONLY_FRONT_DOOR=true and PRIVATE_NETWORK=true are two ways to close the internet\'s door: choose one.'
        : ''
      given.zoneRedundant && !given.privateNetwork
        ? 'ZONE_REDUNDANT=true needs PRIVATE_NETWORK=true: without a network of its own the service stays in one zone.'
        : ''
      given.minReplicas > given.maxReplicas
        ? 'MIN_REPLICAS (${given.minReplicas}) must not be more than MAX_REPLICAS (${given.maxReplicas}).'
        : ''
      given.maxReplicas < 1 || given.maxReplicas > 1000 ? 'MAX_REPLICAS must be from 1 to 1000.' : ''
      !empty(given.cosmosReadRegions) && given.storageBackend != 'cosmos'
        ? 'COSMOS_READ_REGIONS is for STORAGE_BACKEND=cosmos.'
        : ''
      !empty(given.cosmosReadRegions) && given.cosmosCapacity == 'serverless'
        ? 'COSMOS_READ_REGIONS needs COSMOS_CAPACITY=autoscale: a serverless account has one region.'
        : ''
      contains(map(given.cosmosReadRegions, each => region(each)), region(given.cosmosLocation))
        ? 'COSMOS_READ_REGIONS must not name ${given.cosmosLocation}, the region that is written to.'
        : ''
      !empty(given.oidcIssuer) && empty(given.oidcAudience)
        ? 'OIDC_ISSUER needs OIDC_AUDIENCE, the `aud` of access tokens for this API.'
        : ''
      !empty(given.oidcIssuer) && given.storageBackend == 'graph'
        ? 'STORAGE_BACKEND=graph is for users of Microsoft Entra ID: with OIDC_ISSUER use cosmos.'
        : ''
      given.twoDoors && empty(given.oidcIssuer)
        ? 'TWO_DOORS=true needs OIDC_ISSUER, the issuer whose users call besides those of Microsoft Entra ID.'
        : ''
      !empty(given.resolveScope) && given.storageBackend == 'graph'
        ? 'ENTRA_RESOLVE_SCOPE needs STORAGE_BACKEND=cosmos: Microsoft Graph shows a caller nobody else\'s identity.'
        : ''
    ],
    sentence => !empty(sentence)
  )

@export()
@description('The region as Azure names it: West Europe is westeurope')
func region(text string) string => toLower(replace(text, ' ', ''))

func isAcsResourceId(parts string[]) bool =>
  length(parts) == 9
    ? parts[1] == 'subscriptions' && parts[3] == 'resourcegroups' && parts[6] == 'microsoft.communication' && parts[7] == 'communicationservices' && !empty(parts[8])
    : false

@export()
@description('Where people sign in; it stops a deployment to a cloud that the templates are not for')
func authorityHost() string =>
  environment().name == 'AzureCloud'
    ? environment().authentication.loginEndpoint
    : fail('These templates are for the public cloud, and this is ${environment().name}: see docs/national-clouds.md.')
