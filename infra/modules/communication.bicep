// The ACS resource, or an existing one, and the role with which the service's identity issues tokens.
@maxLength(63)
param name string

@description('False: the resource exists, and only the role is added')
param create bool

@description('Where data at rest is kept; it cannot be changed later')
param dataLocation string
param tags object

@description('The service\'s identity: its name, which is known before the deployment, and its principal id')
param identityName string
param principalId string

@description('A group of operators who may do what the service does; empty: none')
param operatorsGroupId string

// Communication and Email Service Owner. ACS has no narrower built-in role, and whether it honours custom ones is
// contested: https://learn.microsoft.com/azure/communication-services/concepts/authentication
var owner = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '09976791-48a7-449e-bb21-39d1a415f350')

resource created 'Microsoft.Communication/communicationServices@2025-09-01' = if (create) {
  name: name
  location: 'global'
  tags: tags
  properties: {
    dataLocation: dataLocation
    disableLocalAuth: true
  }
}

resource service 'Microsoft.Communication/communicationServices@2025-09-01' existing = {
  name: name
}

resource role 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(toLower(service.id), identityName, owner)
  scope: service
  properties: { principalId: principalId, principalType: 'ServicePrincipal', roleDefinitionId: owner }
  dependsOn: [created]
}

resource operatorsRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(operatorsGroupId)) {
  name: guid(toLower(service.id), operatorsGroupId, owner)
  scope: service
  properties: { principalId: operatorsGroupId, principalType: 'Group', roleDefinitionId: owner }
  dependsOn: [created]
}

// No diagnostic setting: the AuthOperational log holds the addresses of identities, which are personal data.

output endpoint string = 'https://${create ? created!.properties.hostName : service.properties.hostName}'
