// Asks the service from outside, and tells when it does not answer. Only for an app that the internet reaches.
param token string
param location string
param tags object
param insightsId string
param url string

@description('Empty: the alert shows in the portal only')
param actionGroupId string

var name = 'availability-${token}'

resource test 'Microsoft.Insights/webtests@2022-06-15' = {
  name: name
  location: location
  tags: union(tags, { 'hidden-link:${insightsId}': 'Resource' })
  kind: 'standard'
  properties: {
    SyntheticMonitorId: name
    Name: name
    Description: 'The service says that it is ready'
    Enabled: true
    Frequency: 900 // each run from each place is billed
    Timeout: 30
    Kind: 'standard'
    RetryEnabled: true
    Locations: [
      { Id: 'emea-nl-ams-azr' } // West Europe
      { Id: 'us-va-ash-azr' } // East US
      { Id: 'apac-sg-sin-azr' } // Southeast Asia
    ]
    Request: { RequestUrl: url, HttpVerb: 'GET', ParseDependentRequests: false }
    ValidationRules: { ExpectedHttpStatusCode: 200, SSLCheck: true, SSLCertRemainingLifetimeCheck: 7 }
  }
}

resource alert 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: 'alert-${name}'
  location: 'global'
  tags: tags
  properties: {
    description: 'At least 2 of 3 places on the internet get no answer that says the service is ready'
    severity: 1
    enabled: true
    scopes: [test.id, insightsId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT30M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.WebtestLocationAvailabilityCriteria'
      webTestId: test.id
      componentId: insightsId
      failedLocationCount: 2
    }
    actions: empty(actionGroupId) ? [] : [{ actionGroupId: actionGroupId }]
  }
}
