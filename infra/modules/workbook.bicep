// The dashboard.
param token string
param location string
param tags object
param insightsId string

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid('acs-auth', token, 'workbook') // Azure wants a GUID
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'ACS authentication service (${token})'
    category: 'workbook'
    sourceId: insightsId
    serializedData: loadTextContent('../workbook.json')
  }
}
