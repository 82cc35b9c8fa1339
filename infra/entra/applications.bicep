// The app registrations, as far as they can be made before the service: what gives their client ids.
extension microsoftGraphV1

param uniqueNamePrefix string

@description('The scope to ask for the identities of colleagues (ENTRA_RESOLVE_SCOPE); empty: there is none')
param resolveScope string = ''

var scopes = concat(
  [
    {
      id: guid(uniqueNamePrefix, 'access_as_user')
      value: 'access_as_user'
      type: 'User'
      isEnabled: true
      adminConsentDisplayName: 'Get ACS tokens for the signed-in user'
      adminConsentDescription: 'Lets the app get the signed-in user\'s own identity and access tokens of Azure Communication Services.'
      userConsentDisplayName: 'Get ACS tokens for you'
      userConsentDescription: 'Lets the app get your own identity and access tokens of Azure Communication Services.'
    }
  ],
  // Only an administrator may consent: who has it may ask about everybody in the tenant.
  empty(resolveScope)
    ? []
    : [
        {
          id: guid(uniqueNamePrefix, resolveScope)
          value: resolveScope
          type: 'Admin'
          isEnabled: true
          adminConsentDisplayName: 'Find the ACS identities of colleagues'
          adminConsentDescription: 'Lets the app find, for the signed-in user, the identities that users of the organization have in Azure Communication Services.'
        }
      ]
)

resource api 'Microsoft.Graph/applications@v1.0' = {
  uniqueName: '${uniqueNamePrefix}-api'
  displayName: 'ACS authentication service'
  signInAudience: 'AzureADMyOrg'
  api: {
    requestedAccessTokenVersion: 2
    oauth2PermissionScopes: scopes
  }
  // Tells whether the client can answer a claims challenge: without it every step-up is a 403.
  optionalClaims: {
    accessToken: [
      {
        name: 'xms_cc'
      }
    ]
  }
}

resource apiPrincipal 'Microsoft.Graph/servicePrincipals@v1.0' = {
  appId: api.appId
}

resource browser 'Microsoft.Graph/applications@v1.0' = {
  uniqueName: '${uniqueNamePrefix}-browser'
  displayName: 'ACS authentication service: browser client'
  signInAudience: 'AzureADMyOrg'
}

resource browserPrincipal 'Microsoft.Graph/servicePrincipals@v1.0' = {
  appId: browser.appId
}

output apiClientId string = api.appId
output browserClientId string = browser.appId
output scopes array = scopes
