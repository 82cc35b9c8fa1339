// Alerts on what the service itself tells: queries of Application Insights, evaluated every 5 minutes.
param token string
param location string
param tags object
param insightsId string

@description('Empty: the alerts show in the portal only')
param actionGroupId string

type Query = {
  name: string
  severity: int
  description: string

  @description('An alert is raised when it gives a row')
  query: string
  windowSize: string
}

var queries Query[] = loadJsonContent('../alerts.json')

resource alert 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for each in queries: {
    name: 'alert-${each.name}-${token}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: '${each.name} (${token})'
      description: each.description
      severity: each.severity
      enabled: true
      scopes: [insightsId]
      evaluationFrequency: 'PT5M'
      windowSize: each.windowSize
      autoMitigate: true
      criteria: {
        allOf: [{ query: each.query, timeAggregation: 'Count', operator: 'GreaterThan', threshold: 0 }]
      }
      actions: { actionGroups: empty(actionGroupId) ? [] : [actionGroupId] }
    }
  }
]
