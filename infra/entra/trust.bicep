// The app registrations, complete: what needs their client ids, the managed identity or the service's address.
// It says again what applications.bicep said, so that it holds whether or not an update erases what it leaves out.
extension microsoftGraphV1

param uniqueNamePrefix string
param apiClientId string
param browserClientId string

@description('The API\'s scopes, as applications.bicep made them')
param scopes array
param managedIdentityPrincipalId string

@description('Where the browser client returns to after sign-in')
param redirectUris string[]

@description('Ask for the delegated permission with which the graph store keeps mappings on the caller')
param graphPermissions bool

var graph = '00000003-0000-0000-c000-000000000000'
var userReadWrite = 'b4e74841-8e56-480b-be8b-910348b18b4c'
// ACS's own service principal must be in the tenant before anybody can consent: Microsoft's, so it isn't written here.
var acs = '1fd5118e-2576-4263-8130-9503064c837a'
var teamsManageCalls = 'de8ec1df-066a-4817-bc5d-9a985b986262'
var teamsManageChats = '6290af7f-b407-49f9-92d5-bf584fdc4019'

resource api 'Microsoft.Graph/applications@v1.0' = {
  uniqueName: '${uniqueNamePrefix}-api'
  displayName: 'ACS authentication service'
  signInAudience: 'AzureADMyOrg'
  identifierUris: ['api://${apiClientId}']
  api: {
    requestedAccessTokenVersion: 2
    oauth2PermissionScopes: scopes
    preAuthorizedApplications: [{ appId: browserClientId, delegatedPermissionIds: [scopes[0].id] }]
  }
  optionalClaims: {
    accessToken: [
      {
        name: 'xms_cc'
      }
    ]
  }
  requiredResourceAccess: graphPermissions
    ? [{ resourceAppId: graph, resourceAccess: [{ id: userReadWrite, type: 'Scope' }] }]
    : []

  // In place of a client secret: the service's managed identity signs in as this application.
  resource managedIdentity 'federatedIdentityCredentials@v1.0' = {
    name: '${api.uniqueName}/managed-identity'
    description: 'The managed identity of the service'
    audiences: ['api://AzureADTokenExchange']
    issuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
    subject: managedIdentityPrincipalId
  }
}

resource browser 'Microsoft.Graph/applications@v1.0' = {
  uniqueName: '${uniqueNamePrefix}-browser'
  displayName: 'ACS authentication service: browser client'
  signInAudience: 'AzureADMyOrg'
  spa: { redirectUris: redirectUris }
  requiredResourceAccess: [
    { resourceAppId: apiClientId, resourceAccess: [{ id: scopes[0].id, type: 'Scope' }] }
    {
      resourceAppId: acs
      resourceAccess: [
        { id: teamsManageCalls, type: 'Scope' }
        { id: teamsManageChats, type: 'Scope' }
      ]
    }
  ]
}
