// The mapping store: one container of small items, read and written by id. Only Entra ID opens it.
@minLength(3)
@maxLength(44)
param name string
param location string
param tags object

@allowed(['serverless', 'autoscale'])
param capacity string

@description('For autoscale: regions to read from and to fail over to')
param readRegions string[]
param zoneRedundant bool

@allowed(['Enabled', 'Disabled'])
param publicNetworkAccess string

@description('The service\'s identity: its name, which is known before the deployment, and its principal id')
param identityName string
param principalId string

@description('A group of operators who may do what the service does; empty: none')
param operatorsGroupId string
param workspaceId string

@description('For autoscale: the most RU/s; a tenth of it is the least that is billed')
@minValue(1000)
param maxThroughput int

var databaseName = 'acs-auth'
var containerName = 'identity-mappings'
var serverless = capacity == 'serverless'
var regions = serverless ? [location] : concat([location], readRegions)
var principals = concat(
  [{ name: identityName, id: principalId }],
  empty(operatorsGroupId) ? [] : [{ name: operatorsGroupId, id: operatorsGroupId }]
)

resource account 'Microsoft.DocumentDB/databaseAccounts@2025-10-15' = {
  name: name
  location: location
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    capabilities: serverless ? [{ name: 'EnableServerless' }] : []
    // Every replica of the service sees at once what another one wrote; writes go to one region.
    consistencyPolicy: { defaultConsistencyLevel: 'Strong' }
    enableMultipleWriteLocations: false
    locations: [
      for (region, index) in regions: {
        locationName: region
        failoverPriority: index
        isZoneRedundant: zoneRedundant
      }
    ]
    // Not by the number of regions: Azure refuses a change of the regions together with another one.
    enableAutomaticFailover: !serverless
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    minimalTlsVersion: 'Tls12'
    publicNetworkAccess: publicNetworkAccess
    backupPolicy: {
      type: 'Continuous'
      continuousModeProperties: { tier: 'Continuous7Days' }
    }
  }
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2025-10-15' = {
  parent: account
  name: databaseName
  properties: { resource: { id: databaseName } }
}

resource container 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2025-10-15' = {
  parent: database
  name: containerName
  properties: {
    resource: {
      id: containerName
      partitionKey: { paths: ['/id'], kind: 'Hash', version: 2 }
      // Nothing is searched for by a property. No defaultTtl: a mapping lives until its user deletes it.
      indexingPolicy: {
        indexingMode: 'consistent'
        automatic: true
        includedPaths: []
        excludedPaths: [{ path: '/*' }]
      }
    }
    options: serverless ? {} : { autoscaleSettings: { maxThroughput: maxThroughput } }
  }
}

// Two roles of our own, since the built-in contributor may do more, and the client reads the account's properties first:
// https://learn.microsoft.com/azure/cosmos-db/nosql/reference-data-plane-security
// All of these are written one after the other: an account takes one write at a time and refuses a second one.
resource mappingRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2025-10-15' = {
  parent: account
  name: guid(toLower(account.id), 'mappings')
  properties: {
    roleName: 'Identity mappings'
    type: 'CustomRole'
    assignableScopes: [account.id]
    permissions: [
      {
        dataActions: [
          'Microsoft.DocumentDB/databaseAccounts/readMetadata'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/executeQuery'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/create'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/read'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/replace'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/delete'
        ]
      }
    ]
  }
  dependsOn: [container]
}

resource metadataRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2025-10-15' = {
  parent: account
  name: guid(toLower(account.id), 'metadata')
  properties: {
    roleName: 'Account metadata'
    type: 'CustomRole'
    assignableScopes: [account.id]
    permissions: [
      {
        dataActions: ['Microsoft.DocumentDB/databaseAccounts/readMetadata']
      }
    ]
  }
  dependsOn: [mappingRole]
}

@batchSize(1)
resource mappingAssignment 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2025-10-15' = [
  for each in principals: {
    parent: account
    name: guid(toLower(mappingRole.id), each.name)
    properties: {
      principalId: each.id
      roleDefinitionId: mappingRole.id
      scope: '${account.id}/dbs/${databaseName}/colls/${containerName}'
    }
    dependsOn: [metadataRole]
  }
]

@batchSize(1)
resource metadataAssignment 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2025-10-15' = [
  for each in principals: {
    parent: account
    name: guid(toLower(metadataRole.id), each.name)
    properties: {
      principalId: each.id
      roleDefinitionId: metadataRole.id
      scope: account.id
    }
    dependsOn: [mappingAssignment]
  }
]

// Not DataPlaneRequests: that log names items, whose ids name people. The portal has the metrics, unpaid.
resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: account
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    logs: [{ category: 'ControlPlaneRequests', enabled: true }]
  }
}

// What comes after this module finds the account ready: it holds the last write as well.
output id string = account.id
output endpoint string = account.properties.documentEndpoint
output databaseName string = databaseName
output containerName string = containerName
