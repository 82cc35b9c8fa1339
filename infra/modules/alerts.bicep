// What should wake somebody: errors, slowness, restarts, a throttled store.
param token string
param tags object

@description('Who is told; empty: the alerts show in the portal alone')
param email string
param apiId string

@description('Empty: there is no Cosmos DB')
param cosmosAccountId string

var apiAlerts = [
  {
    // When no replica is ready, the ingress itself answers 503: this covers readiness, too.
    name: 'errors'
    severity: 1
    description: 'More than 5 answers with a 5xx status in 5 minutes'
    metric: 'Requests'
    aggregation: 'Total'
    threshold: 5
    dimensions: [{ name: 'statusCodeCategory', operator: 'Include', values: ['5xx'] }]
  }
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
]

resource actions 'microsoft.insights/actionGroups@2018-03-01' = if (!empty(email)) {
  name: 'ag-${token}'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'acs-auth'
    emailReceivers: [{ name: 'operators', emailAddress: email }]
  }
}

resource apiAlert 'Microsoft.Insights/metricAlerts@2018-03-01' = [for alert in apiAlerts: {
  name: 'alert-api-${alert.name}-${token}'
  location: 'global'
  tags: tags
  properties: {
    description: alert.description
    severity: alert.severity
    enabled: true
    scopes: [apiId]
    evaluationFrequency: 'PT1M'
    windowSize: 'PT5M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: alert.name
          criterionType: 'StaticThresholdCriterion'
          metricName: alert.metric
          timeAggregation: alert.aggregation
          operator: 'GreaterThan'
          threshold: alert.threshold
          dimensions: alert.dimensions
          skipMetricValidation: true
        }
      ]
    }
    actions: empty(email) ? [] : [{ actionGroupId: actions.id }]
  }
}]

resource throttled 'Microsoft.Insights/metricAlerts@2018-03-01' = if (!empty(cosmosAccountId)) {
  name: 'alert-cosmos-throttled-${token}'
  location: 'global'
  tags: tags
  properties: {
    description: 'Cosmos DB refused more than 10 requests in 5 minutes for want of throughput (429)'
    severity: 2
    enabled: true
    scopes: [cosmosAccountId]
    evaluationFrequency: 'PT1M'
    windowSize: 'PT5M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: 'throttled'
          criterionType: 'StaticThresholdCriterion'
          metricName: 'TotalRequests'
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 10
          dimensions: [{ name: 'StatusCode', operator: 'Include', values: ['429'] }]
        }
      ]
    }
    actions: empty(email) ? [] : [{ actionGroupId: actions.id }]
  }
}
