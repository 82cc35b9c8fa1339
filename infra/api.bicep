// The service: the container app, and the jobs for operators, from an image that exists. A module of resources.bicep where
// the image is known; otherwise azd deploys this file with api.bicepparam after it has built the image ("controlled
// revision", https://github.com/Azure/azure-dev: service_target_containerapp.go).

@export()
@sealed()
@description('All that the service needs to know of the other resources')
type Configuration = {
  @maxLength(32)
  name: string
  location: string
  tags: object
  environmentId: string

  @description('True: Front Door only, by its private endpoint, reaches the environment')
  onlyFrontDoor: bool

  @description('True: the internet reaches the app, so it is asked from outside whether it is ready')
  public: bool

  @description('The user-assigned identity')
  identityId: string

  @description('The registry to pull from with the identity; empty: the image is public')
  registryServer: string

  @description('Name of the Application Insights resource')
  insightsName: string

  @description('Whom alerts tell; empty: nobody')
  actionGroupId: string

  @description('Goes into the names of alerts')
  token: string

  minReplicas: int
  maxReplicas: int

  @description('The most simultaneous requests of a replica before another one is added')
  concurrentRequests: int

  @description('Settings of the service. An empty one is not set')
  variables: { *: string }

  @description('Settings of the service that stand in the vault: their addresses')
  secrets: { *: string }

  jobs: {
    commands: string
    reconcile: string

    @description('When mappings are reconciled, in the form of cron, UTC; empty: never')
    reconcileSchedule: string

    @description('Who may start jobs; empty: nobody but those who may manage the resource group')
    operatorsGroupId: string
  }
}

param configuration Configuration

@minLength(1)
param image string

@description('True: the container app exists, and what people have set on it by hand is kept')
param exists bool

var port = 5000
// Container Apps' secrets are named in lower case, without underscores.
var secrets = map(items(configuration.secrets), each => {
  variable: each.key
  name: toLower(replace(each.key, '_', '-'))
  uri: each.value
})
var references = map(secrets, each => { name: each.name, keyVaultUrl: each.uri, identity: configuration.identityId })
var registries = empty(configuration.registryServer)
  ? []
  : [{ server: configuration.registryServer, identity: configuration.identityId }]
var variables = concat(
  [
    { name: 'PORT', value: string(port) }
    // With it one can send telemetry, and read none.
    { name: 'APPLICATIONINSIGHTS_CONNECTION_STRING', value: insights.properties.ConnectionString }
  ],
  map(items(configuration.variables), each => { name: each.key, value: each.value }),
  map(secrets, each => { name: each.variable, secretRef: each.name })
)

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: configuration.insightsName
}

resource environment 'Microsoft.App/managedEnvironments@2025-07-01' existing = {
  name: last(split(configuration.environmentId, '/'))!
}

module running 'modules/running.bicep' = if (exists) {
  name: 'running'
  params: { name: configuration.name }
}

resource app 'Microsoft.App/containerApps@2025-07-01' = {
  name: configuration.name
  location: configuration.location
  // The service's name in azure.yaml, by which azd finds the app.
  tags: union({ 'azd-service-name': 'api' }, configuration.tags)
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${configuration.identityId}': {} }
  }
  properties: {
    environmentId: configuration.environmentId
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: 'Single'
      maxInactiveRevisions: 10
      ingress: exists && !running!.outputs.ingressEnabled
        ? null
        : {
            external: true
            targetPort: port
            transport: 'auto'
            allowInsecure: false
            traffic: [{ latestRevision: true, weight: 100 }]
            customDomains: exists ? running!.outputs.customDomains : []
            ipSecurityRestrictions: exists ? running!.outputs.ipSecurityRestrictions : []
          }
      registries: registries
      secrets: references
    }
    template: {
      // Longer than the service takes to finish what is in flight.
      terminationGracePeriodSeconds: 40
      containers: [
        {
          name: 'api'
          image: image
          resources: { cpu: json('0.5'), memory: '1Gi' }
          env: variables
          probes: [
            {
              type: 'Startup'
              httpGet: { path: '/health/startup', port: port }
              periodSeconds: 2
              timeoutSeconds: 2
              failureThreshold: 60 // the types say at most 10; for start-up the service accepts up to 240
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
        minReplicas: configuration.minReplicas
        maxReplicas: configuration.maxReplicas
        rules: [
          { name: 'http', http: { metadata: { concurrentRequests: string(configuration.concurrentRequests) } } }
        ]
      }
    }
  }
}

// What the platform tells and the service can't. Alerts on what the service tells are in modules/queries.bicep.
module alerts 'modules/alerts.bicep' = {
  name: 'api-alerts'
  params: {
    subject: 'api'
    token: configuration.token
    tags: configuration.tags
    scopeId: app.id
    actionGroupId: configuration.actionGroupId
    alerts: concat(
      [
        {
          name: 'latency'
          severity: 2
          description: 'Answers took more than 1 s on average over 5 minutes'
          metric: 'ResponseTime'
          aggregation: 'Average'
          threshold: 1000
          dimensions: []
        }
        {
          name: 'restarts'
          severity: 2
          description: 'A replica restarted more than twice'
          metric: 'RestartCount'
          aggregation: 'Maximum'
          threshold: 2
          dimensions: []
        }
      ],
      configuration.minReplicas < configuration.maxReplicas
        ? [
            {
              name: 'replicas'
              severity: 2
              description: 'As many replicas run as may: more load is refused or waits'
              metric: 'Replicas'
              aggregation: 'Maximum'
              threshold: configuration.maxReplicas - 1
              dimensions: []
            }
          ]
        : []
    )
  }
}

module availability 'modules/availability.bicep' = if (configuration.public) {
  name: 'availability'
  params: {
    token: configuration.token
    location: configuration.location
    tags: configuration.tags
    insightsId: insights.id
    url: 'https://${configuration.name}.${environment.properties.defaultDomain}/health/ready'
    actionGroupId: configuration.actionGroupId
  }
}

// Where operators run a command of the service with its identity and settings, inside its network.
module commands 'modules/job.bicep' = {
  name: 'commands'
  params: {
    name: configuration.jobs.commands
    location: configuration.location
    tags: configuration.tags
    environmentId: configuration.environmentId
    identityId: configuration.identityId
    registries: registries
    secrets: references
    variables: variables
    image: image
    arguments: ['doctor']
    schedule: ''
    operatorsGroupId: configuration.jobs.operatorsGroupId
  }
}

module reconcile 'modules/job.bicep' = if (!empty(configuration.jobs.reconcileSchedule)) {
  name: 'reconcile'
  params: {
    name: configuration.jobs.reconcile
    location: configuration.location
    tags: configuration.tags
    environmentId: configuration.environmentId
    identityId: configuration.identityId
    registries: registries
    secrets: references
    variables: variables
    image: image
    arguments: ['reconcile']
    schedule: configuration.jobs.reconcileSchedule
    operatorsGroupId: configuration.jobs.operatorsGroupId
  }
}
