// The service: a Container Apps environment and the container app, with every setting that it needs.
@maxLength(32)
param name string
param environmentName string
param location string
param tags object

@description('The service key in azure.yaml, by which azd finds the container app')
param serviceName string

@description('True: keep the image that runs')
param exists bool

@description('The image; empty: the one that runs, or a placeholder until azd deploys the first one')
param image string

@description('The registry to pull from with the identity; empty: the image is public')
param registryServer string
param identityId string
param identityClientId string
param workspaceId string
param insightsName string

@description('Empty: no private network')
param infrastructureSubnetId string
param internalIngress bool
param zoneRedundant bool
param minReplicas int
param maxReplicas int

@description('The most simultaneous requests of a replica before another one is added')
param concurrentRequests int = 50

param apiClientId string
param browserClientId string
param corsAllowedOrigins string
param acsEndpoint string
param storageBackend string
param cosmosEndpoint string
param cosmosDatabase string
param cosmosContainer string

var port = 5000
var placeholder = 'mcr.microsoft.com/azuredocs/containerapps-helloworld:latest'
var privateNetwork = !empty(infrastructureSubnetId)

resource environment 'Microsoft.App/managedEnvironments@2025-07-01' = {
  name: environmentName
  location: location
  tags: tags
  properties: {
    appLogsConfiguration: { destination: 'azure-monitor' }
    workloadProfiles: [{ name: 'Consumption', workloadProfileType: 'Consumption' }]
    zoneRedundant: privateNetwork && zoneRedundant
    vnetConfiguration: privateNetwork ? { infrastructureSubnetId: infrastructureSubnetId, internal: internalIngress } : null
    peerTrafficConfiguration: { encryption: { enabled: true } }
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: environment
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'ContainerAppConsoleLogs', enabled: true }
      { category: 'ContainerAppSystemLogs', enabled: true }
    ]
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource running 'Microsoft.App/containerApps@2025-07-01' existing = if (exists) {
  name: name
}

resource app 'Microsoft.App/containerApps@2025-07-01' = {
  name: name
  location: location
  tags: union(tags, { 'azd-service-name': serviceName })
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    environmentId: environment.id
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: 'Single'
      maxInactiveRevisions: 10
      ingress: {
        external: true
        targetPort: port
        transport: 'auto'
        allowInsecure: false
        traffic: [{ latestRevision: true, weight: 100 }]
      }
      registries: empty(registryServer) ? [] : [{ server: registryServer, identity: identityId }]
    }
    template: {
      // Longer than the service takes to finish what is in flight.
      terminationGracePeriodSeconds: 40
      containers: [
        {
          name: 'api'
          image: !empty(image) ? image : exists ? running!.properties.template.containers[0].image : placeholder
          resources: { cpu: json('0.5'), memory: '1Gi' }
          // An empty value means that the variable is not set.
          env: [
            { name: 'PORT', value: string(port) }
            { name: 'TRUSTED_PROXY_HOPS', value: '1' } // the ingress
            { name: 'CORS_ALLOWED_ORIGINS', value: corsAllowedOrigins }
            { name: 'ENTRA_AUTHORITY_HOST', value: az.environment().authentication.loginEndpoint }
            { name: 'ENTRA_TENANT_ID', value: tenant().tenantId }
            { name: 'ENTRA_CLIENT_ID', value: apiClientId }
            { name: 'ENTRA_MANAGED_IDENTITY_CLIENT_ID', value: identityClientId }
            { name: 'TEAMS_CLIENT_IDS', value: browserClientId }
            { name: 'ACS_ENDPOINT', value: acsEndpoint }
            { name: 'STORAGE_BACKEND', value: storageBackend }
            { name: 'COSMOS_ENDPOINT', value: cosmosEndpoint }
            { name: 'COSMOS_DATABASE', value: cosmosDatabase }
            { name: 'COSMOS_CONTAINER', value: cosmosContainer }
            { name: 'DOCS_CLIENT_ID', value: browserClientId }
            // With it one can send telemetry, and read none.
            { name: 'APPLICATIONINSIGHTS_CONNECTION_STRING', value: insights.properties.ConnectionString }
          ]
          probes: [
            {
              type: 'Startup'
              httpGet: { path: '/health/startup', port: port }
              periodSeconds: 2
              timeoutSeconds: 2
              failureThreshold: 60
            }
            {
              type: 'Liveness'
              httpGet: { path: '/health/live', port: port }
              periodSeconds: 10
              timeoutSeconds: 3
              failureThreshold: 3
            }
            {
              type: 'Readiness'
              httpGet: { path: '/health/ready', port: port }
              periodSeconds: 5
              timeoutSeconds: 3
              failureThreshold: 3
            }
          ]
        }
      ]
      scale: {
        minReplicas: minReplicas
        maxReplicas: maxReplicas
        rules: [
          { name: 'http', http: { metadata: { concurrentRequests: string(concurrentRequests) } } }
        ]
      }
    }
  }
}

output id string = app.id
output name string = app.name
output uri string = 'https://${app.properties.configuration.ingress.fqdn}'
