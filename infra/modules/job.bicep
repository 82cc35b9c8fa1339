// A job: one command of the service, started by hand or by a schedule, with the service's identity and settings.
@maxLength(32)
param name string
param location string
param tags object
param environmentId string
param identityId string
param registries object[]
param secrets object[]
param variables object[]
param image string
param arguments string[]

@description('In the form of cron, UTC; empty: started by hand')
param schedule string

@description('A group of operators who may start and stop it; empty: none')
param operatorsGroupId string

// Container Apps Jobs Operator
var jobsOperator = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'b9a307c4-5aa3-4b52-ba60-2b17c136cd7b'
)

resource job 'Microsoft.App/jobs@2025-07-01' = {
  name: name
  location: location
  tags: tags
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    environmentId: environmentId
    workloadProfileName: 'Consumption'
    configuration: {
      triggerType: empty(schedule) ? 'Manual' : 'Schedule'
      manualTriggerConfig: empty(schedule) ? { parallelism: 1, replicaCompletionCount: 1 } : null
      scheduleTriggerConfig: empty(schedule)
        ? null
        : { cronExpression: schedule, parallelism: 1, replicaCompletionCount: 1 }
      // A day: a large migration is one execution. A failed command isn't repeated by itself: its exit status says more.
      replicaTimeout: 86400
      replicaRetryLimit: 0
      registries: registries
      secrets: secrets
    }
    template: {
      containers: [
        {
          name: 'command'
          image: image
          args: arguments
          resources: { cpu: json('0.5'), memory: '1Gi' }
          env: variables
        }
      ]
    }
  }
}

resource operate 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(operatorsGroupId)) {
  name: guid(toLower(job.id), operatorsGroupId, jobsOperator)
  scope: job
  properties: { principalId: operatorsGroupId, principalType: 'Group', roleDefinitionId: jobsOperator }
}

output name string = job.name
