// The mapping store: one container of small items, read and written by id. Entra ID alone opens it.
@minLength(3)
@maxLength(44)
param name string
param location string
param tags object

@allowed(['serverless', 'autoscale'])
param capacity string

@description('For autoscale: regions to read from and to fail over to')
param readRegions string[] = []
param zoneRedundant bool = false

@allowed(['Enabled', 'Disabled'])
param publicNetworkAccess string = 'Enabled'
param principalId string
param workspaceId string

@description('For autoscale: the most RU/s; a tenth of it is the least that is billed')
@minValue(1000)
param maxThroughput int = 1000

var databaseName = 'acs-auth'
var containerName = 'identity-mappings'
var serverless = capacity == 'serverless'
var regions = serverless ? [location] : concat([location], readRegions)

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
    locations: [for (region, index) in regions: {
      locationName: trim(region)
      failoverPriority: index
      isZoneRedundant: zoneRedundant
    }]
    enableAutomaticFailover: length(regions) > 1
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
resource mappingRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2025-10-15' = {
  parent: account
  name: guid(account.id, 'mappings')
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
}

resource metadataRole 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2025-10-15' = {
  parent: account
  name: guid(account.id, 'metadata')
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
}

resource mappingAssignment 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2025-10-15' = {
  parent: account
  name: guid(mappingRole.id, principalId)
  properties: {
    principalId: principalId
    roleDefinitionId: mappingRole.id
    scope: '${account.id}/dbs/${databaseName}/colls/${containerName}'
  }
  dependsOn: [container]
}

resource metadataAssignment 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2025-10-15' = {
  parent: account
  name: guid(metadataRole.id, principalId)
  properties: {
    principalId: principalId
    roleDefinitionId: metadataRole.id
    scope: account.id
  }
}

// Not DataPlaneRequests: that log names items, whose ids name people.
resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: account
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    logs: [{ category: 'ControlPlaneRequests', enabled: true }]
    metrics: [{ category: 'Requests', enabled: true }]
  }
}

output id string = account.id
output endpoint string = account.properties.documentEndpoint
output databaseName string = databaseName
output containerName string = containerName
