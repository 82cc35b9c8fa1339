// Alerts on one resource's metrics.
@export()
type Alert = {
  name: string
  severity: int
  description: string
  metric: string
  aggregation: string
  threshold: int
  dimensions: object[]
}

@description('Stands between alert- and the alert\'s name')
param subject string
param token string
param tags object
param scopeId string

@description('Empty: the alerts show in the portal only')
param actionGroupId string
param alerts Alert[]

resource alert 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for each in alerts: {
    name: 'alert-${subject}-${each.name}-${token}'
    location: 'global'
    tags: tags
    properties: {
      description: each.description
      severity: each.severity
      enabled: true
      scopes: [scopeId]
      evaluationFrequency: 'PT1M'
      windowSize: 'PT5M'
      autoMitigate: true
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            name: each.name
            criterionType: 'StaticThresholdCriterion'
            metricName: each.metric
            timeAggregation: each.aggregation
            operator: 'GreaterThan'
            threshold: each.threshold
            dimensions: each.dimensions
            skipMetricValidation: true
          }
        ]
      }
      actions: empty(actionGroupId) ? [] : [{ actionGroupId: actionGroupId }]
    }
  }
]
