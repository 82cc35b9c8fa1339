// Tells when the resource group's costs of a month near the budget. It stops nothing.
param name string
param amount int
param email string

@description('The first day of the month in which the budget was made, as 2026-11-01. Azure refuses another one later')
param startDate string

resource budget 'Microsoft.Consumption/budgets@2023-11-01' = {
  name: name
  properties: {
    category: 'Cost'
    amount: amount
    timeGrain: 'Monthly'
    timePeriod: { startDate: startDate }
    notifications: toObject([50, 90, 100], percent => 'actual-${percent}', percent => {
      enabled: true
      operator: 'GreaterThanOrEqualTo'
      threshold: percent
      thresholdType: 'Actual'
      contactEmails: [email]
    })
  }
}
