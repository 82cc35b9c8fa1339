// The secrets that the service can't do without, made once and read by its identity. Nobody has to know them.
@minLength(3)
@maxLength(24)
param name string
param location string
param tags object

@description('True where a deleted vault of this name still exists: it comes back with its secrets')
param recover bool

@description('The service\'s identity: its name, which is known before the deployment, and its principal id')
param identityName string
param principalId string

@description('True: the graph store is used, whose mappings are sealed')
param sealKeys bool

// Read by the first deployment only: the secrets below are made where they do not exist.
@secure()
param logHashKey string = '${newGuid()}${newGuid()}'

@secure()
param sealKey string = base64('${newGuid()}${newGuid()}')

// Key Vault Secrets User
var secretsUser = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  '4633458b-17de-408a-b874-0445c86b69e6'
)

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: { family: 'A', name: 'standard' }
    createMode: recover ? 'recover' : 'default'
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
    enablePurgeProtection: true
    // Opened by a token of Entra ID only. Whether Container Apps reads references through a private endpoint was not tried.
    publicNetworkAccess: 'Enabled'
  }
}

@onlyIfNotExists()
resource logHashKeySecret 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = {
  parent: vault
  name: 'log-hash-key'
  properties: { value: logHashKey, contentType: 'LOG_HASH_KEY' }
}

@onlyIfNotExists()
resource sealKeysSecret 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = if (sealKeys) {
  parent: vault
  name: 'graph-seal-keys'
  properties: { value: sealKey, contentType: 'GRAPH_SEAL_KEYS' }
}

resource read 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(toLower(vault.id), identityName, secretsUser)
  scope: vault
  properties: { principalId: principalId, principalType: 'ServicePrincipal', roleDefinitionId: secretsUser }
}

output name string = vault.name
@description('Empty without the graph store')
output graphSealKeysUri string = sealKeys ? '${vault.properties.vaultUri}secrets/graph-seal-keys' : ''
output logHashKeyUri string = '${vault.properties.vaultUri}secrets/${logHashKeySecret.name}'
