// Front Door before one region or several. It reaches the apps by private endpoints, so nobody gets past it: their
// environments take no other calls (ONLY_FRONT_DOOR=true). That takes its Premium tier.
@minLength(1)
@maxLength(46)
param name string
param tags object = {}

@description('One region\'s service')
type Origin = {
  @description('Such as westeurope')
  location: string

  @description('Id of its Container Apps environment')
  environmentId: string

  @description('The app\'s name in its environment\'s domain')
  hostName: string

  @description('1 is asked first; equal ones share the calls')
  priority: int
}

@minLength(1)
param origins Origin[]

resource profile 'Microsoft.Cdn/profiles@2025-04-15' = {
  name: name
  location: 'global'
  tags: tags
  sku: { name: 'Premium_AzureFrontDoor' }
  properties: { originResponseTimeoutSeconds: 30 }
}

resource endpoint 'Microsoft.Cdn/profiles/afdEndpoints@2025-04-15' = {
  parent: profile
  name: name
  location: 'global'
  tags: tags
  properties: { enabledState: 'Enabled' }
}

resource group 'Microsoft.Cdn/profiles/originGroups@2025-04-15' = {
  parent: profile
  name: 'api'
  properties: {
    loadBalancingSettings: { sampleSize: 4, successfulSamplesRequired: 2, additionalLatencyInMilliseconds: 0 }
    healthProbeSettings: {
      probePath: '/health/ready'
      probeProtocol: 'Https'
      probeRequestType: 'GET'
      probeIntervalInSeconds: 30
    }
    sessionAffinityState: 'Disabled'
  }
}

@batchSize(1)
resource origin 'Microsoft.Cdn/profiles/originGroups/origins@2025-04-15' = [
  for each in origins: {
    parent: group
    name: each.location
    properties: {
      hostName: each.hostName
      originHostHeader: each.hostName
      httpsPort: 443
      priority: each.priority
      weight: 1000
      enforceCertificateNameCheck: true
      sharedPrivateLinkResource: {
        privateLink: { id: each.environmentId }
        privateLinkLocation: each.location
        groupId: 'managedEnvironments'
        requestMessage: 'Front Door ${name}'
      }
    }
  }
]

resource route 'Microsoft.Cdn/profiles/afdEndpoints/routes@2025-04-15' = {
  parent: endpoint
  name: 'all'
  properties: {
    originGroup: { id: group.id }
    patternsToMatch: ['/*']
    supportedProtocols: ['Https']
    forwardingProtocol: 'HttpsOnly'
    httpsRedirect: 'Disabled'
    linkToDefaultDomain: 'Enabled'
  }
  dependsOn: [origin]
}

output hostName string = endpoint.properties.hostName
